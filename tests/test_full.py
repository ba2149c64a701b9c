"""P4: at the limit values are returned but not stored; what is stored still hits; waiters still share."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

import coopshm
from tests.conftest import clean
from tests.procs import WATCHDOG, run, threads, until

KIB = 1024


def _fill(c: coopshm.Cache, size: int) -> int:
    n = 0
    while not c.stats().full:
        c.cached(("fill", n), lambda n=n: bytes([n % 256]) * size)
        n += 1
    return n - 1


def test_a_full_cache_returns_values_without_storing_them_and_still_hits(cache) -> None:
    c = cache(memory_limit="256 KiB")
    stored = _fill(c, 4000)
    assert stored > 50
    assert c.stats().bytes_used <= 256 * KIB
    for n in range(stored):
        assert c.cached(("fill", n), lambda: pytest.fail("stored values still hit")) == bytes([n % 256]) * 4000
    entries = c.stats().entries
    for n in range(20):
        assert c.cached(("more", n), lambda n=n: bytes([n]) * 4000) == bytes([n]) * 4000
    assert c.stats().entries == entries
    assert c.stats().bypasses["full"] >= 20
    c.reset()
    assert c.cached(("more", 1), lambda: b"fits") == b"fits"
    assert c.get(("more", 1)) == b"fits"
    assert clean(c)


def _warn(index: int, settings: Any) -> int:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("coopshm").addHandler(handler)
    coopshm.configure(settings)
    for n in range(200):
        coopshm.cached("c", (index, n), lambda: b"x" * 8000)
    return len([record for record in records if "memory_limit is reached" in record.getMessage()])


def test_one_warning_per_generation_on_the_whole_host(settings, cache) -> None:
    c = cache(memory_limit="256 KiB")
    options = settings(memory_limit="256 KiB")
    assert sum(run(6, _warn, options)) == 1
    assert sum(run(2, _warn, options)) == 0
    c.reset()
    assert sum(run(6, _warn, options)) == 1


def _shared(c: coopshm.Cache, n: int, value: bytes) -> tuple[int, list[Any]]:
    """`n` threads ask for one key while the cache is full; returns computations and answers."""
    computing, go, computations = threading.Event(), threading.Event(), []

    def fn() -> bytes:
        computations.append(1)
        computing.set()
        assert go.wait(WATCHDOG)
        return value

    def body(index: int) -> Any:
        if index == n:
            until(lambda: c.stats().waiters >= n - 1)
            go.set()
            return None
        return c.cached("shared", fn)

    answers = threads(n + 1, body)[:n]
    return len(computations), answers


@pytest.mark.parametrize("size", [10, 20_000, 5_000_000])
def test_waiters_of_one_flight_share_its_value_when_there_is_no_room(cache, size) -> None:
    c = cache(memory_limit="64 KiB")
    _fill(c, 1000)
    _fill(c, 10)
    assert _shared(c, 16, b"v" * size) == (1, [b"v" * size] * 16)
    assert c.get("shared") is None
    assert clean(c)


def test_a_value_larger_than_the_limit_is_returned_and_shared(cache) -> None:
    c = cache(memory_limit="64 KiB")
    large = bytes(range(256)) * 4096
    assert c.cached("large", lambda: large) == large
    assert c.stats().bypasses["too_large"] == 1
    assert _shared(c, 8, large) == (1, [large] * 8)
    assert c.cached("small", lambda: 1) == 1
    assert c.get("small") == 1
    assert clean(c)
    assert c.stats().reserved_bytes < 3 * 1024 * KIB, "the payload's pages went back"


def test_the_smallest_memory_limit_works(cache) -> None:
    c = cache(memory_limit=64 * KIB)
    stored = _fill(c, 100)
    assert stored > 400
    assert clean(c)
    for generation in range(50):
        c.reset()
        for n in range(30):
            assert c.cached(n, lambda n=n, generation=generation: (generation, n)) == (generation, n)
    assert clean(c)


def test_max_items_can_be_reached_before_the_arena_is_full(cache) -> None:
    c = cache(max_items=100)
    for n in range(150):
        assert c.cached(n, lambda n=n: n * n) == n * n
    assert c.stats().entries == 100
    assert c.stats().bypasses["items"] == 50
    assert sorted(c.keys()) == list(range(100))
    assert _shared(c, 8, b"v") == (1, [b"v"] * 8)
    assert clean(c)


def test_memory_is_taken_as_the_cache_fills(cache) -> None:
    c = cache(memory_limit="64 MiB")
    before = c.stats().reserved_bytes
    assert before < 8 * 1024 * KIB
    c.cached("one", lambda: b"x" * (8 * 1024 * KIB))
    after = c.stats().reserved_bytes
    assert 8 * 1024 * KIB <= after - before < 10 * 1024 * KIB
