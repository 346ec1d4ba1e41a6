"""Importing what triggers do in a thread.

Airflow imports a trigger's class on the event loop that all triggers of a triggerer share. So the modules of the
classes import little; what the triggers do, with the hub and all clients, would block the loop for 0.1 to 0.2 s.
"""

from __future__ import annotations

import gc
from importlib import import_module
from types import ModuleType
from typing import Any

import anyio
import anyio.to_thread

_importing = anyio.Lock()
_imported: dict[str, ModuleType] = {}


async def imported(name: str) -> Any:
    """Return a module, imported in a thread.

    :param name: of the module.
    """
    if name not in _imported:
        async with _importing:
            # Many triggers begin at once, and the first has imported it for all.
            if name not in _imported:
                _imported[name] = await anyio.to_thread.run_sync(_import, name)
    return _imported[name]


def _import(name: str) -> ModuleType:
    if not _imported:
        # Exclude Airflow's own objects from garbage collection. An import makes enough objects for a full collection,
        # which would block all threads for 100 to 200 ms.
        gc.freeze()
    return import_module(name)
