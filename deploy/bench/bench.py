"""Measures triggers of this project and of the official provider against the same simulated Airbyte, in one run.

Everything listens on loopback, and nothing is left running. Tables go to standard output, progress to standard error.
Run it by ``make bench``: it installs the official provider into .venv-bench, and puts the modules that this takes from
elsewhere in ``deploy`` on the path.

To add a part, write a module beside this one with the names of :class:`part.Part`, and name it in :data:`PARTS`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import tomllib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import mapped
import psutil  # type: ignore[import-untyped]
from processes import Processes, StackError, ended_by_signals
from progress import Progress
from report import Report
from rich.console import Console

from postgres_server import binaries

if TYPE_CHECKING:
    from part import Part

PARTS = ("latency", "waiting", "live", "stalls", "delivery", "ingest", "stores", "fanout", "replicas", "cost", "mapped")
"""The modules of the parts, in the order of measuring."""

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "build" / "bench.json"


def main() -> int:
    options = parse()
    parts = {name: cast("Part", importlib.import_module(name)) for name in options.only}
    if options.results is None:
        failures, document = collect(options, parts)
        if document is None:
            return 130
        if not options.ci:
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    else:
        failures, document = [], json.loads(options.results.read_text())
        parts = {name: cast("Part", importlib.import_module(name)) for name in PARTS if name in document["results"]}
    parts = {name: part for name, part in parts.items() if name in document["results"]}
    show(document, parts, as_json=options.json)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def collect(options: argparse.Namespace, parts: dict[str, Part]) -> tuple[list[str], dict[str, Any] | None]:
    """Measure, and return what failed and the results; None if a signal stopped it."""
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 200)
    home = Path(tempfile.mkdtemp(prefix="airbyte-events-bench-"))
    failures: list[str] = []
    document: dict[str, Any] | None = None
    try:
        with ended_by_signals():
            failures, document = run(home, options, parts, Progress(console))
    except KeyboardInterrupt:
        console.print("stopped, nothing is left running")
    if failures:
        console.print(f"kept, with all logs: {home}", markup=False, highlight=False, soft_wrap=True)
    else:
        shutil.rmtree(home, ignore_errors=True)
    return failures, document


def run(
    home: Path, options: argparse.Namespace, parts: dict[str, Part], progress: Progress
) -> tuple[list[str], dict[str, Any]]:
    """Measure the parts, one after the other. One that fails does not stop the others."""
    scales = {name: part.SMALL if options.ci else part.FULL for name, part in parts.items()}
    if options.at_once:
        scales["mapped"] = mapped.at_once(options.at_once)
    left = sum(part.duration(scales[name]) for name, part in parts.items())
    results: dict[str, Any] = {}
    failures = []
    began = time.monotonic()
    for place, (name, part) in enumerate(parts.items(), 1):
        takes = part.duration(scales[name])
        where = f"[{place}/{len(parts)}] {name}: {part.TITLE}"
        started = time.monotonic()
        result = "done"
        with progress.during(f"{where}: about {takes:.0f} s, of {left / 60:.0f} min left"):
            try:
                with Processes(home / name / "logs", home) as processes:
                    results[name] = part.measure(processes, home / name, scales[name], progress)
            except StackError as exc:
                result = "failed"
                failures.append(f"{name} failed: {exc}")
        progress(f"{where}: {result} in {time.monotonic() - started:.0f} s (estimate: {takes:.0f} s)")
        left -= takes
    progress(f"all done in {(time.monotonic() - began) / 60:.1f} min")
    return failures, {
        "command": command(options),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        # Only a whole run at full size is for the documentation.
        "complete": not failures and not options.ci and not options.at_once and tuple(parts) == PARTS,
        "results": results,
    }


def show(document: dict[str, Any], parts: dict[str, Part], *, as_json: bool) -> None:
    """Print the results, and write those of a whole run into the documentation."""
    report = Report(document, parts)
    if document["complete"]:
        for page, rewrite in ((ROOT / "docs" / "benchmarks.md", report.page), (ROOT / "README.md", report.readme)):
            page.write_text(rewrite(page.read_text()))
            print(f"{page.relative_to(ROOT)} has the figures of this run now", file=sys.stderr)
    if as_json:
        aims = [{"aim": aim.what, "value": aim.value, "met": aim.met} for aim in report.aims]
        print(json.dumps(document | {"aims": aims}, indent=1))
    elif sys.stdout.isatty():
        Console().print(report.terminal())
    else:
        print(report.pipe())


def command(options: argparse.Namespace) -> str:
    arguments = [f"--only {','.join(options.only)}"] * (options.only != PARTS) + ["--ci"] * options.ci
    arguments += [f"--at-once {options.at_once}"] * bool(options.at_once)
    return "make bench" + (f' ARGS="{" ".join(arguments)}"' if arguments else "")


def commit() -> str:
    """Return the commit that was measured."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return (git("rev-parse", "--short=10", "HEAD") or "unknown") + (" with changes" if changed else "")


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
        "system": platform.system(),
    }


def versions() -> dict[str, str]:
    """The versions of what was measured."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    official = next(each for each in groups["official"] if "providers-airbyte" in each)
    postgres = subprocess.run(
        [binaries() / "bin" / "postgres", "--version"], capture_output=True, text=True, check=True
    )
    return {
        "airbyte-events": version("airbyte-events"),
        "the official provider": official.partition("==")[2],
        "Airflow": version("apache-airflow-core"),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "PostgreSQL": postgres.stdout.split()[-1],
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only",
        type=selection,
        default=PARTS,
        metavar="NAME,…",
        help=f"some of: {', '.join(PARTS)}. The documentation is not written",
    )
    parser.add_argument(
        "--ci", action="store_true", help="at a small size, to see that it works: the documentation is not written"
    )
    parser.add_argument(
        "--at-once",
        type=int,
        metavar="COUNT",
        help="the jobs of each side that complete at once in the part mapped: 500 take 10 minutes, 1000 take 20. The"
        " documentation is not written",
    )
    parser.add_argument("--json", action="store_true", help="print all results as JSON")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help=f"show an earlier run's, such as {RESULTS.relative_to(ROOT)}, instead of measuring",
    )
    return parser.parse_args()


def selection(text: str) -> tuple[str, ...]:
    names = {name.strip() for name in text.split(",") if name.strip()}
    if (unknown := names - set(PARTS)) or not names:
        raise argparse.ArgumentTypeError(f"there is no part {', '.join(sorted(unknown))}: {', '.join(PARTS)}")
    return tuple(name for name in PARTS if name in names)


if __name__ == "__main__":
    sys.exit(main())
