"""list, stats, flights: they take no lock, and nobody notices them."""

from __future__ import annotations

import datetime
import time

import click

from .. import keys
from .._segment import FlightInfo
from ..errors import CoopshmError, shorten_text
from ..rates import hit_ratio
from ..stats import Histogram, Stats, collect
from . import segments
from .segments import MissingError, Place
from .session import Session, complain, json_option, name_argument, version_text
from .text import Cell, Table, age, fill, number, percent
from .text import size as size_text

__all__ = ["COMMANDS", "flight_document", "flight_row", "ratio_cell"]

_HEADER = "NAMESPACE CACHE ENTRIES USED LIMIT FILL HITS VERSION GENERATION PROCESSES".split()

#: Statistics that are shown with a unit.
_SIZES = ("memory_limit", "bytes_used", "pinned_bytes", "reserved_bytes", "stranded_bytes", "stored_bytes")

#: What the list shows of the statistics.
_LISTED = ("entries", "bytes_used", "memory_limit", "version", "generation", "processes")


def ratio_cell(ratio: float | None) -> str:
    return "-" if ratio is None else percent(ratio, 1)


@click.command("list")
@click.option("--all", "everywhere", is_flag=True, help="Those of all namespaces.")
@json_option
@click.pass_obj
def _list(session: Session, everywhere: bool) -> None:
    """List the caches of the namespace that have a segment.

    HITS is the part of all look-ups that found their value stored, since the segment was created. A segment that
    cannot be read is listed all the same; stderr (with --json: its error) says why.
    """
    namespace = None if everywhere else session.config.namespace
    documents: list[dict[str, object]] = []
    rows: list[list[str | Cell]] = []
    for place in segments.existing(namespace):
        stats, problem = None, None
        try:
            stats = _look(place)
        except MissingError:
            continue  # removed since it was found
        except CoopshmError as exc:
            problem = str(exc)
            if not session.json:
                complain(problem)
        numbers: dict[str, object] = {field: stats and getattr(stats, field) for field in _LISTED}
        ratio = stats and hit_ratio(stats.hits + stats.hot_hits, stats.misses)
        documents.append({**place._asdict(), **numbers, "hit_ratio": ratio, "error": problem})
        rows.append([*(place if everywhere else place[1:]), *_list_cells(stats)])
    document = {"namespace": namespace, "caches": documents}
    if not rows:
        session.print(document, "no caches on this host" if everywhere else f"no caches in namespace {namespace!r}")
    elif everywhere:
        session.print(document, Table(_HEADER, rows, "llrrrrrlrr"))
    else:
        session.print(document, Table(_HEADER[1:], rows, "lrrrrrlrr"))


def _look(place: Place) -> Stats:
    segment = segments.attach(place)
    try:
        return collect(place.cache, segment)
    finally:
        segment.leave()


def _list_cells(stats: Stats | None) -> list[str | Cell]:
    if stats is None:
        return ["-"] * 8
    return [
        number(stats.entries),
        size_text(stats.bytes_used),
        size_text(stats.memory_limit),
        fill(stats.bytes_used, stats.memory_limit),
        ratio_cell(hit_ratio(stats.hits + stats.hot_hits, stats.misses)),
        shorten_text(version_text(stats.version), 40),
        str(stats.generation),
        Cell(str(stats.processes), "" if stats.processes else "dim"),
    ]


@click.command("stats")
@name_argument
@json_option
@click.pass_obj
def _stats(session: Session, name: str) -> None:
    """Show the statistics of cache NAME.

    Entries, bytes and chunks are those of the current generation, flights and waiters those of this moment.
    What is counted is counted since the segment was created.
    """
    place = session.place(name)
    stats = _look(place)
    document = {**place._asdict(), **stats.as_dict()}
    del document["name"]
    shown = {**document, "compute": stats.compute, "wait": stats.wait}
    rows = [[field.replace("_", " "), _stats_cell(field, value)] for field, value in shown.items()]
    session.print(document, Table(["STATISTIC", "VALUE"], rows, "ll"))


def _stats_cell(field: str, value: object) -> str:
    if field == "version":
        return version_text(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{cause} {amount}" for cause, amount in value.items() if amount) or "none"
    if isinstance(value, Histogram):
        return f"{value.count} in {age(value.sum)}, the longest {age(value.max)}"
    if isinstance(value, float):
        return datetime.datetime.fromtimestamp(value).strftime("%Y-%m-%d %H:%M:%S")
    if field in _SIZES and isinstance(value, int) and value >= 1024:
        return f"{size_text(value)} ({value} bytes)"
    return str(value)


@click.command("flights")
@name_argument
@json_option
@click.pass_obj
def _flights(session: Session, name: str) -> None:
    """List the computations in flight in cache NAME.

    The oldest comes first. One that is not attended has lost its owner: who waits for its key, or asks for it next,
    takes it over.
    """
    place = session.place(name)
    flights = sorted(segments.attach(place).flights(), key=lambda flight: flight.started_ns)
    now = time.monotonic_ns()
    document = {**place._asdict(), "flights": [flight_document(flight, now) for flight in flights]}
    if flights:
        rows = [flight_row(flight, now) for flight in flights]
        session.print(document, Table(["PID", "AGE", "WAITERS", "ATTENDED", "KEY"], rows, "rrrll"))
    else:
        session.print(document, f"{place} has no computation in flight")


def flight_document(flight: FlightInfo, now: int) -> dict[str, object]:
    """Return a flight for --json. `now` is nanoseconds on the monotonic clock."""
    return {
        "key": keys.preview(flight.key, total=flight.key_bytes),
        "pid": flight.pid,
        "age_seconds": _age(flight, now),
        "waiters": flight.waiters,
        "attended": flight.alive,
    }


def flight_row(flight: FlightInfo, now: int) -> list[str | Cell]:
    """Return a flight as a row: PID, age, waiters, attended, key."""
    return [
        str(flight.pid),
        age(_age(flight, now)),
        str(flight.waiters),
        "yes" if flight.alive else Cell("no", "warn"),
        Cell(keys.preview(flight.key, total=flight.key_bytes), "key"),
    ]


def _age(flight: FlightInfo, now: int) -> float:
    return max(0, now - flight.started_ns) / 1e9


COMMANDS = (_list, _stats, _flights)
