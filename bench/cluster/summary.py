"""The figures of docs/cluster.md, made of the results about clusters: `python -m bench cluster.summary`.

It measures nothing. What 300 hosts on one engine would need is worked out from 10 and 30 of them: connections, commands
and bytes grow evenly with their number; processor time is taken to be ten times that of 30 hosts, which is too much by
what does not depend on them at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ..headline import Results

__all__ = ["into", "page"]

_FROM: Final = "<!-- made by `python -m bench cluster.summary`: -->"
_TO: Final = "<!-- so far -->"
_RELAYS: Final = ("peers", "Redis, all", "Redis, on demand")
_REPLICATE: Final = ("all", "on_demand")
_FEW, _MANY, _FLEET = 10, 30, 300


def page(folder: Path) -> str:
    """Return the tables, made of the results in `folder`."""
    results = Results(folder)
    lines = [*_table(("median (p99)", "without", *_RELAYS), _latencies(results))]
    lines += ["", *_table(("", "the network gives", *_RELAYS), _throughputs(results))]
    lines += ["", *_table(("", *_RELAYS), _costs(results))]
    lines += ["", *_table((f"{_FLEET} hosts, on paper", "all", "on demand"), _fleet(results))]
    machine = next((taken for question, taken in results.machines.items() if question.startswith("cluster.")), {})
    if machine:
        about = ", ".join(machine[what] for what in ("date", "CPU", "cores", "kernel", "Python") if what in machine)
        lines += ["", f"Taken on {about}; load average at the start {machine['load average at the start']}."]
    return "\n".join(lines)


def into(document: Path, text: str) -> None:
    """Put `text` where the document wants it."""
    before, _, rest = document.read_text(encoding="utf-8").partition(_FROM)
    _, found, after = rest.partition(_TO)
    if found:
        document.write_text(f"{before}{_FROM}\n\n{text}\n\n{_TO}{after}", encoding="utf-8")


def _table(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " --: |" * (len(heads) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


# ---- latency


def _latencies(results: Results) -> Iterator[Sequence[str]]:
    def here(who: str) -> str:
        return _spread(results, "cluster.miss", "A miss", "1 KiB", who, 1000)

    redis = (here("Redis, all"), here("Redis, on demand"))
    yield (
        "a miss of 1 KiB, its key owned by this node",
        here("no cluster"),
        here("peers, this node owns the key"),
        *redis,
    )
    yield "the same, its key owned by another node", "", here("peers, another node owns the key"), *redis
    who, waits = "another process of that host", "a process of another host"
    title = "Computed on another host meanwhile"
    local = _spread(results, "cluster.miss", title, "peers", who, 1000)
    remote = [_spread(results, "cluster.miss", title, relay, waits, 1000) for relay in _RELAYS]
    yield "waiting for what another host computes, from the end of that (without: on the same host)", local, *remote
    for when in ("right before", "50 ms before"):
        cells = [
            _spread(results, "cluster.miss", "Computed on another host before", when, relay, 1000) for relay in _RELAYS
        ]
        yield f"first ask for what another host has stored {when}", "", *cells
    for size in (3, 5, _FEW, _MANY):
        cells = [_spread(results, "cluster.reset", "Until", f"{size} hosts", relay, 1) for relay in _RELAYS[:2]]
        yield f"a reset is in force on all of {size} hosts", "", *cells, "as all"


def _spread(results: Results, question: str, title: str, case: str, who: str, a_ms: float) -> str:
    found = results.one(question, title, case, who)
    return "" if found is None else f"{_ms(found['median'] / a_ms)} ({_ms(found['p99'] / a_ms)})"


def _ms(ms: float) -> str:
    return f"{ms * 1000:.0f} µs" if ms < 1 else f"{ms:.1f} ms"


# ---- throughput


def _throughputs(results: Results) -> Iterator[Sequence[str]]:
    for case in ("1 MiB, as they are stored", "16 MiB, as they are stored", "1 MiB, by a host that comes back"):
        gives = [_median(results, "cluster.relay", "Large", case, who) for who in ("sockets", "asyncio streams, TLS")]
        cells = [_median(results, "cluster.relay", "Large", case, relay) for relay in _RELAYS]
        yield (
            f"values of {case}, MiB/s",
            f"sockets {_number(gives[0])}, asyncio with TLS {_number(gives[1])}",
            *map(_number, cells),
        )
    for case in ("100 bytes, as they are stored", "100 bytes, by a host that comes back"):
        gives = [_median(results, "cluster.relay", "Small", case, "asyncio streams, TLS, frames of 150 bytes")]
        cells = [_median(results, "cluster.relay", "Small", case, relay) for relay in _RELAYS]
        yield f"entries of {case}, per second", f"frames by asyncio with TLS {_number(gives[0])}", *map(_number, cells)


def _median(results: Results, question: str, title: str, case: str, who: str) -> float | None:
    found = results.one(question, title, case, who)
    return None if found is None else found["median"]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


# ---- what sidecars and entries take


def _costs(results: Results) -> Iterator[Sequence[str]]:
    here, there = "the sidecar of the host that stores", "a sidecar of another host"

    def load(title: str, case: str, who: str) -> list[str]:
        return [_number(_median(results, "cluster.load", title, case, f"{relay}: {who}")) for relay in _RELAYS]

    yield "memory of a sidecar at rest, MiB", *load("Memory", "at rest", here)
    yield "the same after 10,000 entries a second were wanted, MiB", *load("Memory", "after 10,000", here)
    yield "processor at rest, % of a core", *load("Processor time", "at rest", here)
    reached = [_median(results, "cluster.load", "Entries", "10,000", relay) for relay in _RELAYS]
    yield "entries of 100 bytes stored a second by one host, of 10,000 wanted", *map(_number, reached)
    for case in ("1,000", "10,000"):
        for who, name in ((here, "its sidecar"), (there, "each other sidecar")):
            cells = load("Processor time of an entry", f"{case} a second", who)
            yield f"processor for an entry, {name}, at {case} a second wanted, µs", *cells
    for size in ("64 bytes", "1 KiB", "16 KiB", "1 MiB"):
        sent = [_median(results, "cluster.wire", "On the network", size, relay) for relay in _RELAYS]
        yield f"on the network for an entry of {size}, 3 hosts, bytes", *map(_number, sent)
    for size in ("64 bytes", "1 KiB", "16 KiB", "1 MiB"):
        kept = [
            _median(results, "cluster.wire", "In the engine", size, f"{relay}: growth of its data") for relay in _RELAYS
        ]
        yield f"in the engine for an entry of {size}, bytes", *map(_number, kept)


# ---- a fleet


def _fleet(results: Results) -> Iterator[Sequence[str]]:
    def at(size: int, what: str, how: str) -> float:
        found = _median(results, "cluster.fleet", "Figures", what, f"{size} hosts, {how}")
        return float("nan") if found is None else found

    def grown(what: str, how: str) -> float:
        """Of 300, if it grows evenly from 10 to 30; never less than it is."""
        few, many = at(_FEW, what, how), at(_MANY, what, how)
        return many + max(0.0, many - few) / (_MANY - _FEW) * (_FLEET - _MANY)

    def scaled(what: str, how: str) -> float:
        return at(_MANY, what, how) * _FLEET / _MANY

    def shown(name: str, *values: float) -> Sequence[str]:
        return name, *("" if math.isnan(value) else _number(value) for value in values)

    def row(name: str, what: str, factor: float = 1.0) -> Sequence[str]:
        return shown(name, *(factor * grown(what, how) for how in _REPLICATE))

    yield row("connections to the engine", "redis-server's connections")
    yield row("commands a second at rest", "at rest: commands")
    yield shown(
        "engine at rest, % of a core", *(scaled("at rest: redis-server, % of a core", how) for how in _REPLICATE)
    )
    yield row("network of the engine at rest, kB/s", "at rest: from redis-server", 1e-3)
    yield row("from the engine for an entry of 1 KiB, kB", "an entry: from redis-server", 1e-3)
    cores = [scaled("an entry: redis-server", how) for how in _REPLICATE]
    yield shown("engine for an entry of 1 KiB, µs of a core", *cores)
    yield shown("so the fleet stores, a second, with half a core of the engine", *(0.5e6 / cpu for cpu in cores))
    sizes = [grown("an entry: from redis-server", how) for how in _REPLICATE]
    yield shown("and with half of 10 Gbit/s", *(0.5 * 1.25e9 / size for size in sizes))
    each = [at(_FEW, "an entry: each other sidecar", how) for how in _REPLICATE]
    yield shown("each sidecar at 100 entries a second in the fleet, % of a core", *(cpu / 1e4 * 100 for cpu in each))
