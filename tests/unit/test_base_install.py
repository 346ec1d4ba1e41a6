"""The package without extras: what every worker and triggerer of Airflow gets."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil, sys

# What an installation of anyio and httpx brings.
ALLOWED = {"anyio", "httpx", "httpcore", "h11", "certifi", "idna", "sniffio", "typing_extensions", "exceptiongroup"}
OPTIONAL = {"airbyte_events.store.postgres"}  # the extra postgres
EXTRAS = {"web", "listener", "cli", "simulator"}

class Finder:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED | sys.stdlib_module_names | {"airbyte_events"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Finder())
import airbyte_events

imported = []
def walk(package):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        room = module.name.split(".")[1]
        if room in EXTRAS or module.name in OPTIONAL or module.name.endswith("__main__"):
            continue
        imported.append(importlib.import_module(module.name))
        if module.ispkg:
            walk(imported[-1])
walk(airbyte_events)
print(len(imported))
"""


def test_core_imports_with_anyio_and_httpx_alone() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50
