"""top: what the caches do at this moment, again and again."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import click

from ..errors import shorten_text
from .looking import flight_document, flight_row, ratio_cell
from .sampling import Sample, Sampler
from .session import Session, json_option, names_argument, version_text
from .terminal import Terminal
from .text import Block, Cell, Line, Table, age, count, fill, rate
from .text import size as size_text

__all__ = ["COMMANDS", "picture"]

#: What the rates are called above their columns.
_TITLES = {
    "hits": "HITS/s",
    "misses": "MISS/s",
    "computations": "COMP/s",
    "waits": "WAIT/s",
    "failures": "FAIL/s",
    "bypasses": "BYP/s",
}
_HEADER = ["CACHE", "FILL", "USED", "HITS", *_TITLES.values(), "FLIGHTS", "WAITERS", "PROCS", "VERSION"]

#: Computations and keys that are shown; a terminal has some 40 lines.
_FLIGHTS, _SLOWEST = 12, 8


@click.command("top")
@names_argument
@click.option(
    "--interval",
    type=click.FloatRange(min=0.05, max=3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("--iterations", type=click.IntRange(min=1), metavar="N", help="End after N intervals.")
@click.option("--once", is_flag=True, help="One picture, of one interval: the same as --iterations 1.")
@click.option(
    "--svg", type=click.Path(dir_okay=False), metavar="FILE", help="At the end, write the last picture to FILE, as SVG."
)
@json_option
@click.pass_obj
def _top(
    session: Session,
    names: tuple[str, ...],
    interval: float,
    iterations: int | None,
    once: bool,
    svg: str | None,
) -> None:
    """Show what caches do, live: NAMES, or all of the namespace.

    For each cache: how full it is, the part of its look-ups that were hits in the last interval, what it does per
    second (HITS, MISSes, COMPutations, calls that WAITed, FAILures, BYPasses), and its flights, waiters and processes.
    Below, the computations in flight, the oldest first: which process
    computes what, since when, and how many threads wait for it. One that is not attended has lost its owner and will be
    taken over. Then the keys whose computations took longest, of those that the processes remember.

    q (or ctrl-C) ends it, the space bar looks at once. In a pipe, and on a terminal that cannot move its cursor
    (TERM=dumb), the pictures come one after another; with --json there is one document a line.

    \b
    Examples:
      coopshm-admin top
      coopshm-admin top pages --interval 5
      coopshm-admin top --once | mail -s caches root
      coopshm-admin top --json --iterations 60 > minute.jsonl
    """
    namespace = session.config.namespace
    left = 1 if once else iterations
    sampler = Sampler(namespace, names)
    samples = sampler.look()
    for sample in samples:
        if names and sample.error is not None:
            raise sample.error
    with Terminal(session.pretty) as terminal:
        last = picture(namespace, samples, interval)
        if terminal.is_live:
            terminal.show(last)
        while left != 0 and terminal.wait(interval):
            samples = sampler.look()
            last = picture(namespace, samples, interval)
            if session.json:
                click.echo(json.dumps(_document(namespace, samples)))
            else:
                terminal.show(last)
            left = None if left is None else left - 1
    if svg is not None:
        from . import pretty

        try:
            Path(svg).write_text(pretty.svg(last, "coopshm-admin top"), encoding="utf-8")
        except OSError as exc:
            raise click.FileError(svg, exc.strerror) from exc


def picture(namespace: str, samples: Sequence[Sample], interval: float) -> list[Block]:
    """Return what is shown of one look."""
    clock = time.strftime("%H:%M:%S")
    blocks: list[Block] = [Line(f"coopshm  namespace {namespace}  {clock}  every {interval:g} s", "title")]
    rows = [_row(sample) for sample in samples]
    if rows:
        blocks += [Line(""), Table(_HEADER, rows, "lrrr" + "r" * len(_TITLES) + "rrrl")]
    else:
        blocks += [Line(""), Line(f"no caches in namespace {namespace!r}")]
    blocks += [Line(f"{sample.place.cache}: {sample.error}", "bad") for sample in samples if sample.error is not None]
    return [*blocks, *_flights(samples), *_slowest(samples)]


def _row(sample: Sample) -> list[str | Cell]:
    stats, rates = sample.stats, sample.rates
    if stats is None:
        return [sample.place.cache, *["-"] * (len(_HEADER) - 1)]
    speeds: list[str | Cell] = ["-"] * len(_TITLES)
    if rates is not None:
        speeds = [Cell(rate(rates[name]), _urgency(name, rates[name])) for name in _TITLES]
    return [
        Cell(sample.place.cache, "title"),
        fill(stats.bytes_used, stats.memory_limit),
        f"{size_text(stats.bytes_used)} / {size_text(stats.memory_limit)}",
        ratio_cell(sample.hit_ratio),
        *speeds,
        str(stats.flights),
        str(stats.waiters),
        str(stats.processes),
        shorten_text(version_text(stats.version), 24),
    ]


def _urgency(name: str, value: float) -> str:
    if value == 0:
        return "dim"
    return {"failures": "bad", "bypasses": "warn"}.get(name, "")


def _flights(samples: Sequence[Sample]) -> list[Block]:
    now = time.monotonic_ns()
    found = [(flight, sample.place.cache) for sample in samples for flight in sample.flights]
    found.sort(key=lambda one: one[0].started_ns)
    title = f"{count(len(found), 'computation', 'computations')} in flight"
    if not found:
        return [Line(""), Line("no computation in flight", "dim")]
    rows = [[cache, *flight_row(flight, now)] for flight, cache in found[:_FLIGHTS]]
    blocks: list[Block] = [Line(""), Table("CACHE PID AGE WAITERS ATTENDED KEY".split(), rows, "lrrrll", title)]
    if len(found) > _FLIGHTS:
        blocks.append(Line(f"... and {len(found) - _FLIGHTS} more", "dim"))
    return blocks


def _slowest(samples: Sequence[Sample]) -> list[Block]:
    now = time.time()
    found = [(slow, sample.place.cache) for sample in samples for slow in sample.slowest]
    found.sort(key=lambda one: one[0].seconds, reverse=True)
    rows: list[list[str | Cell]] = [
        [cache, str(slow.pid), age(slow.seconds), f"{age(max(0.0, now - slow.ended))} ago", Cell(slow.key, "key")]
        for slow, cache in found[:_SLOWEST]
    ]
    return [Line(""), Table("CACHE PID TOOK ENDED KEY".split(), rows, "lrrrl", "slowest keys")] if rows else []


def _document(namespace: str, samples: Sequence[Sample]) -> dict[str, object]:
    now = time.monotonic_ns()
    caches: list[dict[str, object]] = []
    for sample in samples:
        known: dict[str, object] = {"stats": None}
        if sample.stats is not None:
            numbers = sample.stats.as_dict()
            del numbers["name"]
            known = {"stats": numbers}
        known.update(
            hit_ratio=sample.hit_ratio,
            rates=sample.rates,
            flights=[flight_document(flight, now) for flight in sample.flights],
            slowest=[slow._asdict() for slow in sample.slowest],
            error=None if sample.error is None else str(sample.error),
        )
        caches.append({**sample.place._asdict(), **known})
    return {"namespace": namespace, "at": time.time(), "caches": caches}


COMMANDS = (_top,)
