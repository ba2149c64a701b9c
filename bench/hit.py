"""what does a hit cost, beside functools.lru_cache?

A call asks for one key, whose value is stored, and drops what it gets. The value is not used otherwise, and
the function that would compute it is made once, before: a `lambda` in the call itself costs every contender
the same 30 to 50 ns more. lru_cache (maxsize=1024) keeps the very object in the process and hands it out
again, which no other process sees and every caller shares; it is the bound from below. coopshm reads the
value from shared memory and hands out one of its own each time, unless a hot object in the process will do:
by default for immutable values, with "share" for all, with "off" never. For the ndarrays it is a read-only
array over shared memory, pinned; the call includes letting go of it. All contenders take turns, round by
round, in one process.
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
    @functools.lru_cache(maxsize=1024)
    def lookup(key: object) -> object:
        return make()

    return "lookup(key)", {"lookup": lookup, "key": key}


def module_cached(key: object, make: Make) -> Expression:
    return 'coopshm.cached("default", key, make)', {"coopshm": coopshm, "key": key, "make": make}


def cache_cached(name: str, key: object, make: Make) -> Expression:
    return "cache.cached(key, make)", {"cache": coopshm.open(name), "key": key, "make": make}


#: The caches, which differ in what they keep in the process.
CACHES: dict[str, bool | str] = {"default": True, "share": "share", "off": False}

#: Each returns the expression of a hit, and the names in it. The first is what the others are compared with.
CONTENDERS: dict[str, Callable[[object, Make], Expression]] = {
    "functools.lru_cache": lru_cache,
    "coopshm.cached": module_cached,
    "Cache.cached": functools.partial(cache_cached, "default"),
    "Cache.cached, hot objects: share": functools.partial(cache_cached, "share"),
    "Cache.cached, hot objects: off": functools.partial(cache_cached, "off"),
}


def ndarray(n_bytes: int) -> object:
    import numpy

    return numpy.arange(n_bytes // 8, dtype="int64")


def rows() -> list[dict[str, object]]:
    """200 rows as a small query returns them."""
    return [
        {"id": n, "name": f"product {n}", "price": n * 1.25, "stock": n % 17, "tags": ["new", "sale"]}
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
    bench.configure(**{name: {"memory_limit": "128 MiB", "hot_objects": hot} for name, hot in CACHES.items()})
    by_value, by_key = [], []
    for value, (make, n_bytes) in VALUES.items():
        if "ndarray" in value and not _has_numpy(bench):
            continue
        # In each of the caches, in lru_cache, and while it is being made.
        if bench.has_room((len(CACHES) + 3) * n_bytes, f"hits of {value}"):
            for contender, expression in CONTENDERS.items():
                by_value.append(Timed(value, contender, *expression(f"value:{value}", make)))
    for kind, key in KEYS.items():
        for contender, expression in CONTENDERS.items():
            by_key.append(Timed(kind, contender, *expression(key, lambda: 1)))
    caches = [coopshm.open(name) for name in CACHES]
    for case in by_value + by_key:
        exec(case.statement, case.names)
    computed = [cache.stats().computations for cache in caches]
    rounds = bench.pick(25, 3)
    values, keys = measure(bench, rounds, by_value, by_key)
    if [cache.stats().computations for cache in caches] != computed:
        raise RuntimeError("some of the calls were no hits")
    first = next(iter(CONTENDERS))
    return [
        Table(f"By value ({rounds} rounds)", "ns a call", values, first, case_is="value", plot="bars"),
        Table(f"By key, value an int ({rounds} rounds)", "ns a call", keys, first, case_is="key"),
    ]


def _has_numpy(bench: Bench) -> bool:
    try:
        import numpy  # noqa: F401
    except ImportError:
        bench.note("left out, since numpy is not installed: ndarrays")
        return False
    return True
