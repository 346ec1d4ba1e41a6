"""Measures triggers of this project and of the official provider against the same simulated Airbyte, in one run.

Everything listens on loopback, and nothing is left running. The table goes to standard output and how far it is to
standard error. Run it by ``make bench``: it installs the official provider into .venv-bench, and puts the modules that
this takes from elsewhere in ``deploy`` on the path.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import report
from processes import Processes, StackError, ended_by_signals
from progress import Progress
from rich.console import Console

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULTS = ROOT / "build" / "bench.json"
MEASUREMENTS = {
    "latency": "from a job's end to the trigger's event",
    "waiting": "requests and memory of tasks that wait",
    "stalls": "stalls of the event loop",
    "delivery": "from webhook to another process",
    "ingest": "webhooks taken a second",
    "stores": "the stores beside bare inserts",
    "fanout": "many streams of one listener",
    "replicas": "one listener and three on PostgreSQL",
    "mapped": "mapped tasks of a real Airflow",
}
LONG = ("stores", "mapped")
"""These tell how far they are."""


def main() -> int:
    options = parse()
    if options.results is None:
        status, document = collect(options)
        if status:
            return status
        if not options.ci:
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    else:
        document = json.loads(options.results.read_text())
    show(document, options)
    return 0


def collect(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Measure; exit status and results are returned."""
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 200)
    home = Path(tempfile.mkdtemp(prefix="airbyte-events-bench-"))
    document: dict[str, Any] = {}
    status = 1
    try:
        with ended_by_signals():
            document = run(home, options, Progress(console))
            status = 0
    except KeyboardInterrupt:
        console.print("stopped, nothing is left running")
        status = 130
    except StackError as exc:
        console.print(f"the benchmark failed: {exc}", markup=False, highlight=False, style="red", soft_wrap=True)
        status = 1
    finally:
        if status == 1:
            console.print(f"kept, with all logs: {home}", markup=False, highlight=False, soft_wrap=True)
        else:
            shutil.rmtree(home, ignore_errors=True)
    return status, document


def run(home: Path, options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """All measurements, one after the other."""
    modules = {name: importlib.import_module(name) for name in MEASUREMENTS if name in options.only}
    scale = "CI" if options.ci else "QUICK" if options.quick else "FULL"
    scales = {name: getattr(module, scale) for name, module in modules.items()}
    left = sum(module.duration(scales[name]) for name, module in modules.items())
    results = {}
    for number, (name, module) in enumerate(modules.items(), 1):
        takes = module.duration(scales[name])
        what = f"[{number}/{len(modules)}] {MEASUREMENTS[name]}: about {takes:.0f} s, of {left / 60:.0f} min left"
        with progress.during(what), Processes(home / name / "logs", home) as processes:
            results[name] = module.measure(processes, home / name, scales[name], *([progress] * (name in LONG)))
        progress(f"[{number}/{len(modules)}] {MEASUREMENTS[name]}: done")
        left -= takes
    arguments = [f"--only {','.join(modules)}"] * (len(modules) < len(MEASUREMENTS)) + ["--quick"] * options.quick
    arguments = ["--ci"] if options.ci else arguments
    return {
        "command": "make bench" + (f' ARGS="{" ".join(arguments)}"' if arguments else ""),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "results": results,
        "aims": [aim.data() for aim in report.aims(results)],
    }


def show(document: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the results, and put them into the documentation if that is wanted."""
    if options.docs:
        page = ROOT / "docs" / "benchmarks.md"
        page.write_text(report.put_into(page.read_text(), report.for_docs(document)))
        print("docs/benchmarks.md has the table now", file=sys.stderr)
    if options.json:
        print(json.dumps(document, indent=1))
    elif options.markdown:
        print(report.for_docs(document))
    elif sys.stdout.isatty():
        console = Console()
        console.print(report.for_terminal(document), report.aims_for_terminal(document))
    else:
        print(report.for_pipe(document))


def machine() -> dict[str, Any]:
    """The size of what it ran on."""
    cpu = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "cpus": psutil.cpu_count(),
        "cpu": cpu or platform.machine(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    names = ", ".join(MEASUREMENTS)
    parser.add_argument("--quick", action="store_true", help="a small run in 2 minutes, to see that it works")
    parser.add_argument(
        "--only", type=selection, default=tuple(MEASUREMENTS), metavar="NAME,…", help=f"some of: {names} (default: all)"
    )
    parser.add_argument(
        "--ci", action="store_true", help="only check that 400 mapped tasks complete; results are not stored"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print all results as JSON")
    form.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--docs", action="store_true", help="put the table into docs/benchmarks.md")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help=f"show an earlier run's, which are in {RESULTS.relative_to(ROOT)}, instead of measuring",
    )
    options = parser.parse_args()
    if options.ci:
        options.only = ("mapped",)
    return options


def selection(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"there is no measurement {', '.join(unknown)}: {', '.join(MEASUREMENTS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
