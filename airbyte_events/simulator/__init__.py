"""An Airbyte simulator: the public API, the webhooks and what can go wrong with both, over real HTTP."""

from airbyte_events.simulator.app import simulator_app
from airbyte_events.simulator.faults import Fault
from airbyte_events.simulator.scripts import Phase, Script
from airbyte_events.simulator.server import serve_simulator
from airbyte_events.simulator.simulator import Simulator

__all__ = ["Fault", "Phase", "Script", "Simulator", "serve_simulator", "simulator_app"]
