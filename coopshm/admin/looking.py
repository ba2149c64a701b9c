"""list, stats, keys, flights: they take no lock, and nobody notices them."""

from __future__ import annotations

import sys
import time

import click

from .. import keys
from ..errors import CoopshmError, shorten_text
from ..stats import Stats, collect
from . import segments
from .segments import MissingError, Place
from .session import Session, json_option, name_argument, version_text
from .text import age, percent, table
from .text import size as size_text

__all__ = ["COMMANDS"]

_HEADER = "NAMESPACE CACHE ENTRIES USED LIMIT USED% VERSION GENERATION PROCESSES".split()

#: Statistics that are shown with a unit.
_SIZES = ("memory_limit", "bytes_used", "reserved_bytes", "stranded_bytes")

#: What the list shows of the statistics.
_LISTED = ("entries", "bytes_used", "memory_limit", "version", "generation", "processes")

#: Long enough for the literal of any key: no character of it stands for less than a tenth of a byte.
_WHOLE_KEY = keys.MAX_KEY_BYTES * 10


@click.command("list")
@click.option("--all", "everywhere", is_flag=True, help="Those of all namespaces.")
@json_option
@click.pass_obj
def _list(session: Session, everywhere: bool) -> None:
    """List the caches of the namespace that have a segment.

    One that cannot be read is listed all the same; stderr (with --json: its error) says why.
    """
    namespace = None if everywhere else session.config.namespace
    documents: list[dict[str, object]] = []
    rows: list[list[str]] = []
    for place in segments.existing(namespace):
        stats, problem = None, None
        try:
            stats = _look(place)
        except MissingError:
            continue  # removed since it was found
        except CoopshmError as exc:
            problem = str(exc)
            if not session.json:
                click.echo(f"coopshm-admin: {problem}", err=True)
        numbers: dict[str, object] = {field: stats and getattr(stats, field) for field in _LISTED}
        documents.append({**place._asdict(), **numbers, "error": problem})
        rows.append([*(place if everywhere else place[1:]), *_list_cells(stats)])
    text = table(_HEADER, rows, "llrrrrlrr") if everywhere else table(_HEADER[1:], rows, "lrrrrlrr")
    if not rows:
        text = "no caches on this host" if everywhere else f"no caches in namespace {namespace!r}"
    session.print({"namespace": namespace, "caches": documents}, text)


def _look(place: Place) -> Stats:
    segment = segments.attach(place)
    try:
        return collect(place.cache, segment)
    finally:
        segment.leave()


def _list_cells(stats: Stats | None) -> list[str]:
    if stats is None:
        return ["-"] * 7
    return [
        str(stats.entries),
        size_text(stats.bytes_used),
        size_text(stats.memory_limit),
        percent(stats.bytes_used, stats.memory_limit),
        shorten_text(version_text(stats.version), 40),
        str(stats.generation),
        str(stats.processes),
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
    document = {**place._asdict(), **stats._asdict(), "bypasses": dict(stats.bypasses)}
    del document["name"]
    rows = [[field.replace("_", " "), _stats_cell(field, value)] for field, value in document.items()]
    session.print(document, table(["STATISTIC", "VALUE"], rows, "ll"))


def _stats_cell(field: str, value: object) -> str:
    if field == "version":
        return version_text(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{cause} {number}" for cause, number in value.items() if number) or "none"
    if field in _SIZES and isinstance(value, int) and value >= 1024:
        return f"{size_text(value)} ({value} bytes)"
    return str(value)


@click.command("keys")
@name_argument
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Show only the first N.")
@json_option
@click.pass_obj
def _keys(session: Session, name: str, limit: int | None) -> None:
    """List the keys of cache NAME, in the order in which they were stored, with the size of their values.

    Keys are written as Python literals; long ones are shortened, except with --json.
    """
    place = session.place(name)
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)  # the length of keys is limited already
    entries = segments.attach(place).entries()
    shown = entries if limit is None else entries[:limit]
    document = [{"key": keys.preview(key, _WHOLE_KEY), "value_bytes": size} for key, _format, size in shown]
    rows = [[str(size), keys.preview(key)] for key, _format, size in shown]
    text = table(["VALUE BYTES", "KEY"], rows, "rl") if entries else f"{place} is empty"
    if len(shown) < len(entries):
        text += f"\n... and {len(entries) - len(shown)} more"
    session.print({**place._asdict(), "entries": len(entries), "keys": document}, text)


@click.command("flights")
@name_argument
@json_option
@click.pass_obj
def _flights(session: Session, name: str) -> None:
    """List the computations in flight in cache NAME, the oldest first.

    One that is not attended has lost its owner: who waits for its key, or asks for it next, takes it over.
    """
    place = session.place(name)
    flights = sorted(segments.attach(place).flights(), key=lambda flight: int(flight.started_ns))
    now = time.monotonic_ns()
    document: list[dict[str, object]] = []
    rows: list[list[str]] = []
    for flight in flights:
        total = int(flight.key_bytes)
        key = keys.preview(bytes(flight.key)[:total], total=total)
        seconds = max(0, now - int(flight.started_ns)) / 1e9
        pid, waiters, attended = int(flight.pid), int(flight.waiters), bool(flight.alive)
        document.append({"key": key, "pid": pid, "age_seconds": seconds, "waiters": waiters, "attended": attended})
        rows.append([str(pid), age(seconds), str(waiters), "yes" if attended else "no", key])
    text = table(["PID", "AGE", "WAITERS", "ATTENDED", "KEY"], rows, "rrrll")
    if not rows:
        text = f"{place} has no computation in flight"
    session.print({**place._asdict(), "flights": document}, text)


COMMANDS = (_list, _stats, _keys, _flights)
