"""An Airbyte to rehearse on: the public API, the webhooks and what can go wrong with both, over real HTTP."""

from .faults import Fault
from .instance import Simulator
from .scripts import Phase, Script
from .server import serve_simulator

__all__ = ["Fault", "Phase", "Script", "Simulator", "serve_simulator"]
