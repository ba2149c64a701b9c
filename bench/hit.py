"""what does a hit cost, beside functools.lru_cache?

A call asks for one key, whose value is stored, and drops what it gets. The value is not used otherwise, and the function
that would compute it is made once, before: a `lambda` in the call itself costs every contender the same 30 to 50 ns more.
lru_cache keeps the very object in the process and hands it out again, which no other process sees and every caller shares;
it is the bound from below. coopshm hands out a value of its own each time. For the ndarrays that is a read-only array over
shared memory, pinned; the call includes letting go of it. All contenders take turns, round by round, in one process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import coopshm

from .common import MIB, Bench, Table
from .timing import Timed, measure

Make = Callable[[], object]
Expression = tuple[str, dict[str, object]]


def lru_cache(key: object, make: Make) -> Expression:
    @functools.lru_cache(maxsize=None)
    def lookup(key: object) -> object:
        return make()

    return "lookup(key)", {"lookup": lookup, "key": key}


def module_cached(key: object, make: Make) -> Expression:
    return 'coopshm.cached("hit", key, make)', {"coopshm": coopshm, "key": key, "make": make}


def cache_cached(key: object, make: Make) -> Expression:
    return "cache.cached(key, make)", {"cache": coopshm.open("hit"), "key": key, "make": make}


#: Each returns the expression of a hit, and the names in it. The first is what the others are compared with.
CONTENDERS: dict[str, Callable[[object, Make], Expression]] = {
    "functools.lru_cache": lru_cache,
    "coopshm.cached": module_cached,
    "Cache.cached": cache_cached,
}


def ndarray(n_bytes: int) -> object:
    import numpy

    return numpy.arange(n_bytes // 8, dtype="int64")


def rows() -> list[dict[str, object]]:
    """200 rows as a small query returns them."""
    return [
        {"id": n, "name": f"product {n}", "price": n * 1.25, "stock": n % 17, "tags": ["new", f"group {n % 9}"]}
        for n in range(200)
    ]


#: What a hit returns, and about how many bytes it takes.
VALUES: dict[str, tuple[Make, int]] = {
    "int": (lambda: 123456789, 0),
    "str, 20 characters": (lambda: "twenty characters ok", 0),
    "bytes, 1 KiB": (lambda: b"x" * 1024, 1024),
    "dict, 4 items": (lambda: {"id": 42, "name": "product 42", "price": 52.5, "tags": ["new", "sale"]}, 0),
    "list of 200 dicts": (rows, 0),
    "bytes, 1 MiB": (lambda: b"x" * MIB, MIB),
    "ndarray, 1 MiB": (lambda: ndarray(MIB), MIB),
    "ndarray, 100 MiB": (lambda: ndarray(100 * MIB), 100 * MIB),
}

KEYS: dict[str, object] = {
    "str": "product:42",
    "int": 42,
    "tuple of str and int": ("product", 42),
    "tuple of 4": ("product", 42, "de", True),
}


def run(bench: Bench) -> list[Table]:
    bench.configure(hit={"memory_limit": "256 MiB"})
    cases = []
    for value, (make, n_bytes) in VALUES.items():
        if "ndarray" in value and not _has_numpy(bench):
            continue
        if bench.has_room(3 * n_bytes, f"hits of {value}"):
            for contender, expression in CONTENDERS.items():
                cases.append(Timed(value, contender, *expression(f"value:{value}", make)))
    # Of a type that coopshm may keep as it is, so that what differs is the key.
    by_key = [
        Timed(key, contender, *expression(KEYS[key], lambda: 1))
        for key in KEYS
        for contender, expression in CONTENDERS.items()
    ]
    rounds = bench.pick(25, 3)
    cache = coopshm.open("hit")
    for case in cases + by_key:
        exec(case.statement, case.names)
    computed = cache.stats().computations
    by_value, keys = measure(bench, cases, rounds), measure(bench, by_key, rounds)
    if cache.stats().computations != computed:
        raise RuntimeError("some of the calls were no hits")
    lru = next(iter(CONTENDERS))
    return [
        Table(f"By value ({rounds} rounds)", "ns a call", by_value, lru, case_is="value", plot="bars"),
        Table(f"By key, value an int ({rounds} rounds)", "ns a call", keys, lru, case_is="key"),
    ]


def _has_numpy(bench: Bench) -> bool:
    try:
        import numpy  # noqa: F401
    except ImportError:
        bench.note("left out, since numpy is not installed: ndarrays")
        return False
    return True
