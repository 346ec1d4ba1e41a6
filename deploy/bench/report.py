"""The figures as one table: for people, for pipes, for the documentation."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent.parent


def _official() -> str:
    """Return the official provider's version, as ``.venv-bench`` has it."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    requirement: str = next(each for each in groups["official"] if "providers-airbyte" in each)
    return requirement.partition("==")[2]


COLUMNS = ("pushed", "polling only", f"official {_official()}", "floor")
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """:param cells: one for each of :data:`COLUMNS`."""

    what: str
    cells: tuple[str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What this project wants to reach, as a ratio of figures of one run."""

    what: str
    value: str
    met: bool

    def data(self) -> dict[str, Any]:
        return {"aim": self.what, "value": self.value, "met": self.met}


def rows(results: dict[str, Any]) -> Iterator[Row]:
    """A row for every figure that was measured."""
    parts = {
        "latency": _latency,
        "waiting": _waiting,
        "stalls": _stalls,
        "delivery": _delivery,
        "ingest": _ingest,
        "mapped": _mapped,
    }
    for name, part in parts.items():
        if name in results:
            yield from part(results[name])


def _latency(seen: dict[str, Any]) -> Iterator[Row]:
    for name in ("p50", "p95", "p99"):
        figures = {side: _seconds(each[name]) for side, each in seen.items()}
        yield _row(f"from a job's end to the trigger's event, {name}", figures, "oracle")


def _waiting(seen: dict[str, Any]) -> Iterator[Row]:
    per_minute = seen["requests_per_minute"]
    for count in per_minute["push"]:
        figures = {side: _number(each[count]) for side, each in per_minute.items()}
        yield _row(f"requests a minute, {int(count):,} waiting", figures)
    if taken := seen["bytes_per_trigger"]:
        figures = {side: _kilobytes(each["uss"]) for side, each in taken.items()}
        yield _row(f"memory a waiting trigger, {seen['triggers']:,} waiting", figures, "bare")


def _stalls(seen: dict[str, Any]) -> Iterator[Row]:
    for count in seen["push"]:
        for name, what in (("longest", "longest stall of the event loop"), ("p99", "lateness of its timers, p99")):
            figures = {
                side: f"{'≥ ' if each[count]['cut'] else ''}{_seconds(each[count][name])}"
                for side, each in seen.items()
            }
            yield _row(f"{what}, {int(count):,} waiting", figures, "bare")


def _delivery(seen: dict[str, Any]) -> Iterator[Row]:
    for name in ("p50", "p99"):
        what = f"from webhook to another process at {seen['rate']} a second, {name}"
        yield _row(what, {"push": _seconds(seen[name])})


def _ingest(seen: dict[str, Any]) -> Iterator[Row]:
    figures = {"push": f"{seen['listener']['per_second']:,.0f}", "bare": f"{seen['bare']['per_second']:,.0f}"}
    yield _row("webhooks taken durably, a second", figures, "bare")


def _mapped(seen: dict[str, Any]) -> Iterator[Row]:
    for ender in ("trigger", "worker"):
        sides = [side for side in ("push", "oracle") if f"{side}_{ender}" in seen["one_by_one"]]
        for name in ("p50", "p95", "p99"):
            figures = {side: _seconds(seen["one_by_one"][f"{side}_{ender}"][name]) for side in sides}
            yield _row(f"from a job's end to its task's success, ended by the {ender}, {name}", figures, "oracle")
        burst = {side: seen["at_once"][f"{side}_{ender}"] for side in sides}
        figures = {side: _seconds(each["until_last"]) for side, each in burst.items()}
        size = max((each["count"] for each in burst.values()), default=0)
        yield _row(
            f"until the last success of {size:,} whose jobs end at once, ended by the {ender}", figures, "oracle"
        )
    phases = seen["phases"]
    count = sum(number for name, number in seen["tasks"].items() if name.startswith("push"))
    begun = sum(phases["starting"]["requests"].values()) / count
    waited = sum(phases["waiting"]["requests"].values()) * 60 / phases["waiting"]["seconds"]
    yield _row(f"requests a task, while {count:,} mapped tasks begin", {"push": _number(begun)})
    yield _row(f"requests a minute, {count:,} mapped tasks waiting", {"push": _number(waited)})
    for phase, what in (("starting", "beginning"), ("waiting", "waiting")):
        longest = _seconds(phases[phase]["stalls"]["longest"])
        yield _row(f"longest stall of the triggerer's event loop, {count:,} mapped tasks {what}", {"push": longest})
    bursts = {side: phases.get(f"at_once_{side}_trigger") for side in ("push", "oracle")}
    figures = {side: _seconds(each["stalls"]["longest"]) for side, each in bursts.items() if each}
    yield _row("longest stall of the triggerer's event loop, jobs ending at once", figures, "oracle")


def _row(what: str, figures: dict[str, str], floor: str = "") -> Row:
    pushed, polled, official, least = (figures.get(side, "") for side in ("push", "poll", "official", floor))
    return Row(what=what, cells=(pushed, polled, official, least))


STORE_COLUMNS = ("SQLite", "bare SQLite", "PostgreSQL", "bare PostgreSQL")


def store_rows(results: dict[str, Any]) -> Iterator[Row]:
    """The same, of what stores are measured by: for each of :data:`STORE_COLUMNS`."""
    if stores := results.get("stores"):
        lite, server = stores["sqlite"], stores["postgres"]
        what = f"notifications kept durably, a second, from {lite['callers']} callers"
        yield _store_row(what, stores, "received_per_second", "bare_received_per_second")
        for size, cost in lite["appended"].items():
            cells = (_micros(cost), "", _micros(server["appended"][size]), "")
            if size == next(reversed(lite["appended"])):
                bare = [_micros(1e6 / each["bare_appended_per_second"]) for each in (lite, server)]
                cells = (cells[0], bare[0], cells[2], bare[1])
            yield Row(what=f"an event in a batch of {lite['batch']}, {int(size):,} in the log", cells=cells)
        count = lite["caught_up"]["events"]
        cells = (_seconds(lite["caught_up"]["seconds"]), "", _seconds(server["caught_up"]["seconds"]), "")
        yield Row(what=f"a reader catches up on {count:,} events", cells=cells)
    for count, seen in results.get("fanout", {}).items():
        streams = "1 stream" if count == "1" else f"each of {int(count):,} streams"
        yield Row(
            what=f"from the first event to when {streams} has seen {seen['events']}",
            cells=(_seconds(seen["seconds"]), "", "", ""),
        )
    if replicas := results.get("replicas"):
        for count, what in (("1", "one listener"), ("3", "three listeners")):
            cells = ("", "", f"{replicas[count]:,.0f}", "")
            yield Row(what=f"webhooks taken durably, a second, by {what}", cells=cells)


def _store_row(what: str, stores: dict[str, Any], ours: str, bare: str) -> Row:
    cells = [f"{stores[engine][figure]:,.0f}" for engine in ("sqlite", "postgres") for figure in (ours, bare)]
    return Row(what=what, cells=(cells[0], cells[1], cells[2], cells[3]))


def _micros(microseconds: float) -> str:
    return f"{microseconds:,.0f} µs"


def aims(results: dict[str, Any]) -> Iterator[Aim]:
    """What is aimed at, where it was measured."""
    if latency := results.get("latency"):
        for name, limit in (("p50", 0.020), ("p99", 0.150)):
            pushed, told = latency["push"][name], latency["oracle"][name]
            over = None if pushed is None or told is None else pushed - told
            what = f"push {name} within {limit * 1000:.0f} ms of the floor"
            yield Aim(what=what, value=_seconds(over), met=over is not None and over <= limit)
    if waiting := results.get("waiting"):
        count = str(waiting["triggers"])
        pushed, theirs = (waiting["requests_per_minute"][side][count] for side in ("push", "official"))
        if theirs is not None:
            # None at all is at most one in the time that was measured.
            fewer = theirs / max(pushed, 60 / waiting["seconds"])
            yield Aim(
                what=f"at least 100 times fewer requests than official at {int(count):,} tasks",
                value=f"{'' if pushed else '≥ '}{fewer:,.0f} times",
                met=fewer >= 100,
            )
    if stalls := results.get("stalls"):
        ours = [each for side in ("push", "poll") for each in stalls[side].values()]
        longest, collection = (max(each[name] for each in ours) for name in ("longest", "collection"))
        theirs = max(each["longest"] for each in stalls["official"].values())
        bare = max(each["longest"] for each in stalls["bare"].values())
        value = f"{_seconds(longest)}, Python's garbage collector alone {_seconds(collection)}"
        value += f" (official {_seconds(theirs)}, this machine without either {_seconds(bare)})"
        yield Aim(what="no stall over 50 ms where official stalls for seconds", value=value, met=longest <= 0.050)
    if waiting and (taken := waiting["bytes_per_trigger"]):
        over = max(taken[side]["uss"] for side in ("push", "poll")) - taken["bare"]["uss"]
        yield Aim(what="at most 20 kB a waiting trigger over a bare one", value=_kilobytes(over), met=over <= 20_000)
    if ingest := results.get("ingest"):
        share = ingest["ratio"]
        yield Aim(what="webhooks taken durably at 80 % of a bare endpoint", value=f"{share:.0%}", met=share >= 0.8)


def tables(results: dict[str, Any]) -> list[tuple[Sequence[str], list[Row]]]:
    """Those that have rows, each with its columns."""
    both = [(COLUMNS, list(rows(results))), (STORE_COLUMNS, list(store_rows(results)))]
    return [(columns, found) for columns, found in both if found]


def for_terminal(document: dict[str, Any]) -> Group:
    """The tables, and below the last one what they are."""
    shown = []
    for columns, found in tables(document["results"]):
        table = Table(box=SIMPLE)
        table.add_column("")
        for column in columns:
            table.add_column(column, justify="right")
        for row in found:
            table.add_row(row.what, *row.cells)
        shown.append(table)
    return Group(*shown, _caption(document))


def aims_for_terminal(document: dict[str, Any]) -> Table:
    table = Table(box=SIMPLE, show_header=False)
    for aim in aims(document["results"]):
        table.add_row("[green]met[/]" if aim.met else "[red]missed[/]", aim.what, aim.value)
    return table


def for_pipe(document: dict[str, Any]) -> str:
    """Columns of plain text."""
    lines = []
    for columns, found in tables(document["results"]):
        lines += [*_aligned([("", *columns), *((row.what, *row.cells) for row in found)]), ""]
    lines += [_caption(document), ""]
    lines += _aligned([("met" if aim.met else "missed", aim.what, aim.value) for aim in aims(document["results"])])
    return "\n".join(lines)


def for_docs(document: dict[str, Any]) -> str:
    """The tables in Markdown."""
    lines = []
    for columns, found in tables(document["results"]):
        lines += [f"| {' | '.join(('', *columns))} |", "|---|" + "---:|" * len(columns)]
        lines += [f"| {' | '.join((row.what, *row.cells))} |" for row in found] + [""]
    return "\n".join([*lines, _caption(document)])


def put_into(text: str, table: str) -> str:
    """A text with the table between its markers.

    :raises ValueError: if it has none.
    """
    before, marker, rest = text.partition(BEGIN)
    if not marker:
        raise ValueError(f"there is no {BEGIN}")
    after = rest.partition(END)[2] if END in rest else rest
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _caption(document: dict[str, Any]) -> str:
    machine = document["machine"]
    return (
        f"Measured by `{document['command']}` on {document['date']}, {machine['cpus']} CPUs ({machine['cpu']}), "
        f"{machine['memory_gib']} GiB of memory, Python {machine['python']}; simulated Airbyte, listener and triggers "
        "share that machine. Floor: a trigger that gets the webhook itself; a trigger that only waits; an endpoint on "
        "the same server that keeps nothing."
    )


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))] if table else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _number(number: float | None) -> str:
    return "not seen" if number is None else f"{number:,.1f}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "not in time"
    if seconds >= 0.9995:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.0995 else f"{seconds * 1000:.1f} ms"


def _kilobytes(amount: float) -> str:
    return f"{amount / 1000:,.1f} kB" if amount < 99_500 else f"{amount / 1000:,.0f} kB"
