"""what does a miss cost beyond the computation itself, by size?

A call asks for a key that was never asked for; the function that "computes" the value returns a ready-made
one, which takes about 40 ns and is included. So the call is: look up, claim, call, encode, publish. Values
are bytes. No other process asks. Before each batch the cache is reset, untimed. Then its pages are those of
the generation before, as in a server that has been running for a while. With "new pages" the segment is
made anew before each batch, so that the kernel has to find and clear each page.

The peers, by 1 KiB, do what everybody writes first: get, and if there is nothing, compute and set. That keeps
nobody else from computing the same meanwhile; dogpile.cache and diskcache with its lock do, as coopshm does.
All are cleared, untimed, before each batch. lru_cache is there for scale: its miss puts a pointer into a dict
of this process. uWSGI's is timed inside uWSGI, in the same rounds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import coopshm

from . import peers
from .common import MIB, Bench, Table
from .peers import LOCKING, PEERS, UWSGI
from .peers.protocol import Client, Peer, Running
from .timing import Remote, Timed, attend, measure, note_loops
from .values import KIB

_LIMIT = 160 * MIB
#: What one batch stores at most: well below the limit, and with new pages less, because a segment that was
#: replaced keeps its pages until this process ends.
_BUDGET = 96 * MIB
_BUDGET_NEW = 4 * MIB
#: Calls in a batch of a peer, at most.
_MOST = 4000

SIZES = {
    "0 B": 0,
    "64 B": 64,
    "1 KiB": 1024,
    "8 KiB": 8 * 1024,
    "64 KiB": 64 * 1024,
    "512 KiB": 512 * 1024,
    "1 MiB": MIB,
    "8 MiB": 8 * MIB,
}


def _keys(n: int) -> Iterator[str]:
    """Made beforehand, and never the same twice within a generation."""
    return iter([f"product:{at}" for at in range(n)])


def _timed(
    case: str,
    contender: str,
    call: str,
    names: dict[str, object],
    forget: Callable[[], object],
) -> Timed:
    """Return a case whose `call` asks for next(keys), after `forget` made the contender forget all."""

    def before(n: int) -> None:
        forget()
        names["keys"] = _keys(n)

    return Timed(case, contender, call, names, before, loop="next(keys)")


def _reset(case: str, size: int, cache: coopshm.Cache) -> Timed:
    value = b"x" * size
    names: dict[str, object] = {"cache": cache, "make": lambda: value}
    timed = _timed(case, "Cache.cached", "cache.cached(next(keys), make)", names, cache.reset)
    timed.most = _BUDGET // (size + 256)
    return timed


def _new_pages(case: str, size: int, cache: coopshm.Cache) -> Timed:
    timed = _reset(case, size, cache)
    reset = timed.before
    assert reset is not None

    def before(n: int) -> None:
        cache.destroy()
        cache.cached("opens the new segment", int)
        reset(n)

    timed.contender, timed.before, timed.most = "Cache.cached, new pages", before, _BUDGET_NEW // (size + 256)
    return timed


def run(bench: Bench) -> list[Table]:
    most = bench.pick(21, 3)
    limits: dict[str, str | int] = {"memory_limit": _LIMIT}
    bench.configure(miss=limits, new={**limits, "max_items": 16384})
    cache, new = coopshm.open("miss"), coopshm.open("new")
    if not bench.has_room(2 * _LIMIT, "everything"):
        return []

    value = KIB
    make: dict[str, object] = {"make": lambda: value}
    lookup = functools.lru_cache(maxsize=1024)(lambda key: value)
    lru: dict[str, object] = {"lookup": lookup}
    module = 'coopshm.cached("miss", next(keys), make)'
    beside = [
        _timed("1 KiB", "functools.lru_cache", "lookup(next(keys))", lru, lookup.cache_clear),
        _timed("1 KiB", "coopshm.cached", module, {"coopshm": coopshm, **make}, cache.reset),
        _reset("1 KiB", 1024, cache),
    ]
    beside[1].most = beside[2].most
    by_size = [_reset(case, size, cache) for case, size in SIZES.items()]
    # As often as calibrating does it too, and with 64 KiB of arena taken at a time.
    if bench.has_room(4 * (most + 10) * (_BUDGET_NEW + 2 * MIB), "new pages"):
        by_size += [_new_pages(case, size, new) for case, size in SIZES.items() if 64 <= size <= MIB]
    with ExitStack() as stack:
        running = stack.enter_context(
            peers.started(bench, (*PEERS, *LOCKING), items=2 * _MOST, largest=len(KIB), room=2 * _MOST * len(KIB))
        )
        for peer, started in running.items():
            peers.attempt(bench, peer, "starting", partial(_add, beside, stack, peer, started))
        side_by_side, sizes = measure(bench, bench.rounds(most, most), beside, by_size)
    note_loops(bench, beside, by_size)
    lru_name = beside[0].contender
    return [
        Table("A miss of 1 KiB", "ns a call", side_by_side, lru_name, case_is="value", plot="ranked"),
        Table("By size", "ns a call", sizes, case_is="value", plot="lines"),
    ]


def _add(cases: list[Timed], stack: ExitStack, peer: Peer, running: Running) -> None:
    """Add a peer's case; the one inside uWSGI is timed there."""
    if running.here:
        cases.append(_of_peer(peer, running.connect()))
    else:
        (mule,) = stack.enter_context(running.workers(1, partial(attend, partial(_in_uwsgi, running.connect))))
        case = Remote("1 KiB", peer.name, mule, "miss", loop="next(keys)")
        case.most = _MOST
        cases.append(case)


def _in_uwsgi(connect: Callable[[], Client]) -> Callable[[str], Timed]:
    client = connect()
    return lambda name: _of_peer(UWSGI, client)


def _of_peer(peer: Peer, client: Client) -> Timed:
    names: dict[str, object] = {"ask": client.asking(), "make": lambda: KIB}
    timed = _timed("1 KiB", peer.name, "ask(next(keys), make)", names, client.clear)
    timed.optional, timed.most = True, _MOST
    return timed
