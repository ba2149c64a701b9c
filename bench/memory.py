"""how much memory does an entry take beside its key and value?

A cache with `max_items` N is filled with N entries: str keys of 10 to 14 characters, bytes of 0 to 255
bytes, 128 on average. The figures are bytes, divided by N. "index" is what the segment takes once it is
created, less what one with hardly any `max_items` takes: it is there before the first entry is. "headers
and padding" is what the entries take in the arena beside their encoded keys and values. "log and the rest"
is what is left of all the memory that the segment takes, as the kernel counts it: 8 bytes of commit log,
and the unused end of the arena's last chunk. Fixed costs are given by themselves.
"""

from __future__ import annotations

from functools import partial

import coopshm
from coopshm.keys import encode_key

from .common import MIB, Bench, Sample, Table


def run(bench: Bench) -> list[Table]:
    counts = bench.pick([10**5, 10**6], [1000])
    counts = [n for n in counts if bench.has_room(2 * _limit(n), f"{n:,} entries")]
    # The same limit, so the same number of chunks: only the index differs.
    full = {f"{n}-full": {"memory_limit": _limit(n), "max_items": n} for n in counts}
    none = {f"{n}-none": {"memory_limit": _limit(n), "max_items": 1} for n in counts}
    bench.configure(**full, **none)
    samples, fixed = [], []
    for n in counts:
        smallest = coopshm.open(f"{n}-none").stats().reserved_bytes
        cache = coopshm.open(f"{n}-full")
        empty = cache.stats().reserved_bytes
        payload = _fill(cache, n)
        stats = cache.stats()
        if stats.entries != n:
            raise RuntimeError(f"{stats.entries} entries are stored, not {n}")
        parts = {
            "index": empty - smallest,
            "headers and padding": stats.bytes_used - payload,
            "log and the rest": stats.reserved_bytes - empty - stats.bytes_used,
        }
        parts["all"] = sum(parts.values())
        parts["keys and values, for comparison"] = payload
        samples += [Sample(f"{n:,} entries", part, [size / n]) for part, size in parts.items()]
        fixed.append(Sample(f"memory_limit {_limit(n) / MIB:.0f} MiB", "an empty cache", [smallest / 1024]))
    return [
        Table("Bytes an entry", "bytes an entry", samples, contender_is="part", show=("median",)),
        Table("Fixed costs of a cache", "KiB", fixed, contender_is="of", show=("median",)),
    ]


def _limit(n: int) -> int:
    return MIB + 224 * n


def _fill(cache: coopshm.Cache, n: int) -> int:
    """Store `n` entries; return the bytes of their encoded keys and values."""
    makes = [partial(bytes, size) for size in range(256)]
    payload = 0
    for at in range(n):
        key, size = f"product {at}", at * 101 % 256
        cache.cached(key, makes[size])
        payload += len(encode_key(key)) + size
    return payload
