"""what does a hit cost, beside functools.lru_cache and the peers?

A call asks for one key, whose value is stored, and drops what it gets. The value is not used otherwise, and
the function that would compute it is made once, before: a `lambda` in the call itself costs every contender
the same 30 to 50 ns more. Keys are the same for all; what a peer lets one bind or encode once, outside the
call, is outside. All contenders of a value take turns, round by round.

lru_cache keeps the very object in the process and hands it out again, which no other process sees and every
caller shares; it is the bound from below. coopshm reads the value from shared memory and hands out one of its
own each time, unless a hot object in the process will do: by default for immutable values, with "share" for
all, with "off" never. For the ndarrays it is a read-only array over shared memory, pinned; the call includes
letting go of it.

Peers that store nothing but bytes get other values pickled ("+ pickle", protocol 5); bytes are themselves for
everybody. The others encode by their own means. UltraDict hands out the object that the process keeps, as
lru_cache does. uWSGI's cache exists only inside uWSGI, so it is timed there, in the same rounds, and the
second table has what the others cost in the same process: its Python is compiled in, so the two may differ.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import coopshm

from . import peers
from .common import MIB, Bench, Config, Sample, Table
from .peers import LRU, PEERS, UWSGI
from .peers.protocol import Client, Expression, Peer, Running
from .procs import Asked
from .timing import Order, Remote, Timed, attend, measure, note_loops
from .values import KEYS, VALUES, without_numpy

Make = Callable[[], object]

#: None where coopshm does not have it.
_memoize = getattr(coopshm, "memoize", None)

_KEY = "product:42"
_BIG = 16 * MIB  # from here on a round is slow for most, so there are fewer


def lru_cache(key: object, make: Make) -> Expression:
    @functools.lru_cache(maxsize=1024)
    def lookup(key: object) -> object:
        return make()

    return "lookup(key)", {"lookup": lookup, "key": key}


def module_cached(name: str, key: object, make: Make) -> Expression:
    return f"coopshm.cached({name!r}, key, make)", {"coopshm": coopshm, "key": key, "make": make}


def memoized(name: str, key: object, make: Make) -> Expression:
    """The decorated function gets the key as its argument."""

    def function(key: object) -> object:
        return make()

    assert _memoize is not None, "not measured where it is missing"
    # Two functions of one name would share their entries.
    function.__qualname__ = f"function_{id(make)}_{key}"
    return "function(key)", {"function": _memoize(name)(function), "key": key}


def cache_cached(name: str, key: object, make: Make) -> Expression:
    return "cache.cached(key, make)", {"cache": coopshm.open(name), "key": key, "make": make}


#: The caches, which differ in what they keep in the process.
CACHES: dict[str, bool | str] = {"default": True, "share": "share", "off": False}

_MEMOIZED = {
    "coopshm.memoize": partial(memoized, "default"),
    "coopshm.memoize, hot objects: off": partial(memoized, "off"),
}
#: Each returns the expression of a hit, and the names in it. The first is what the others are compared with.
CONTENDERS: dict[str, Callable[[object, Make], Expression]] = {
    LRU.name: lru_cache,
    "coopshm.cached": partial(module_cached, "default"),
    "coopshm.cached, hot objects: off": partial(module_cached, "off"),
    **(_MEMOIZED if _memoize else {}),
    "Cache.cached": partial(cache_cached, "default"),
    "Cache.cached, hot objects: share": partial(cache_cached, "share"),
    "Cache.cached, hot objects: off": partial(cache_cached, "off"),
}

#: Which of them are also timed inside uWSGI.
_INSIDE = (LRU.name, "coopshm.cached", "Cache.cached", "Cache.cached, hot objects: off")


def run(bench: Bench) -> list[Table]:
    bench.configure(**{name: {"memory_limit": "256 MiB", "hot_objects": hot} for name, hot in CACHES.items()})
    if _memoize is None:
        bench.note("left out, since coopshm does not have it: memoize")
    values = {
        name: value
        for name, value in VALUES.items()
        if not ("ndarray" in name and without_numpy(bench))
        # In each of the caches and peers, and while it is being made.
        if bench.has_room((2 * len(CACHES) + 2 * len(PEERS)) * value.n_bytes, f"hits of {name}")
    }
    by_value: list[Sample] = []
    inside: list[Sample] = []
    most = max(value.n_bytes for value in values.values())
    with ExitStack() as stack:
        running = stack.enter_context(peers.started(bench, PEERS, items=16, largest=most, room=2 * most))
        clients: dict[Peer, Client] = {}
        mule = _mule(bench, stack, running.pop(UWSGI, None))
        for peer, started in running.items():
            peers.attempt(bench, peer, "connecting", partial(_connect, clients, peer, started))
        for name in values:
            rounds = bench.rounds(5, 3, 0.3) if values[name].n_bytes >= _BIG else bench.rounds(41, 3, 0.7 / len(VALUES))
            outside, within = _of_value(bench, rounds, name, clients, mule)
            by_value += outside
            inside += within
    keys = _by_key(bench)
    return [
        Table("By value", "ns a call", by_value, LRU.name, case_is="value", plot="ranked"),
        Table("Inside uWSGI", "ns a call", inside, LRU.name, case_is="value"),
        Table("By key, value an int", "ns a call", keys, LRU.name, case_is="key"),
    ]


def _of_value(
    bench: Bench, rounds: Iterator[int], name: str, clients: dict[Peer, Client], mule: Asked[Order, float] | None
) -> tuple[list[Sample], list[Sample]]:
    """Return what it costs here and in uWSGI."""
    value = VALUES[name].make()
    cases = [Timed(name, who, *expression(f"value:{name}", lambda: value)) for who, expression in CONTENDERS.items()]
    computed = _warm(cases)
    for peer, client in clients.items():

        def add(peer: Peer = peer, client: Client = client) -> None:
            client.put(_KEY, value)
            timed = Timed(name, peer.label(value), *client.hit(_KEY, value), optional=True)
            _check(timed, value)
            cases.append(timed)

        peers.attempt(bench, peer, name, add)
    within: list[Timed] = []
    if mule is not None:
        cases.append(Remote(name, UWSGI.label(value), mule, f"{UWSGI.name}|{name}"))
        within = [Remote(name, who, mule, f"{who}|{name}") for who in _INSIDE]
    samples, inside = measure(bench, rounds, cases, within)
    if _computations() != computed:
        raise RuntimeError("some of the calls were no hits")
    note_loops(bench, cases if name == "int" else [])
    for peer, client in clients.items():
        peers.attempt(bench, peer, "clearing", client.clear)
    order = [*CONTENDERS, *(peer.label(value) for peer in PEERS)]
    inside += [sample for sample in samples if sample.contender == UWSGI.label(value)]
    return sorted(samples, key=lambda sample: order.index(sample.contender)), inside


def _connect(clients: dict[Peer, Client], peer: Peer, running: Running) -> None:
    clients[peer] = running.connect()


def _check(timed: Timed, value: object) -> None:
    """Raise if what is about to be timed does not return the value."""
    got = eval(timed.statement, timed.names)
    same = got == value
    if not (same if isinstance(same, bool) else same.all()):
        raise RuntimeError(f"returned {got!r:.40}")


def _warm(cases: list[Timed]) -> list[int]:
    for case in cases:
        exec(case.statement, case.names)
    return _computations()


def _computations() -> list[int]:
    return [coopshm.open(name).stats().computations for name in CACHES]


def _by_key(bench: Bench) -> list[Sample]:
    cases = [
        Timed(kind, who, *expression(key, lambda: 1))
        for kind, key in KEYS.items()
        for who, expression in CONTENDERS.items()
    ]
    computed = _warm(cases)
    (samples,) = measure(bench, bench.rounds(25, 3, 0.1), cases)
    if _computations() != computed:
        raise RuntimeError("some of the calls were no hits")
    return samples


# ---- in uWSGI


def _mule(bench: Bench, stack: ExitStack, running: Running | None) -> Asked[Order, float] | None:
    if running is None:
        return None
    found: list[Asked[Order, float]] = []

    def start() -> None:
        make = partial(_in_uwsgi, running.connect, bench.config)
        found.extend(stack.enter_context(running.workers(1, partial(attend, make))))

    return found[0] if peers.attempt(bench, UWSGI, "connecting", start) else None


def _in_uwsgi(connect: Callable[[], Client], config: Config) -> Callable[[str], Timed]:
    """Return what makes the case of a name, which says who is asked for what."""
    coopshm.configure(config)
    client = connect()

    def case(name: str) -> Timed:
        who, of = name.split("|")
        value = VALUES[of].make()
        if who == UWSGI.name:
            client.clear()
            client.put(_KEY, value)
            timed = Timed(of, who, *client.hit(_KEY, value))
        else:
            timed = Timed(of, who, *CONTENDERS[who](f"value:{of}", lambda: value))
        _check(timed, value)
        return timed

    return case
