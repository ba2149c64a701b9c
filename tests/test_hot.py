"""What a process keeps of a generation: hot objects. Exact with respect to resets, typed, bounded."""

from __future__ import annotations

import gc
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import coopshm
from coopshm import hot, keys
from tests.conftest import clean
from tests.procs import Child


def _fail() -> Any:
    pytest.fail("stored values are not computed")


def test_an_immutable_value_is_the_same_object_at_each_hit(cache) -> None:
    c = cache()
    for key, value in enumerate(["text" * 50, b"bytes" * 50, 10**30, 1.5, True, None, ("a", (1, None)), ()]):
        c.cached(key, lambda value=value: value)
        assert c.cached(key, _fail) is c.cached(key, _fail)
    assert c.stats().hot_hits == 16
    assert c.stats().hits == 0


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, {1}, bytearray(b"x"), ("tuple of", [])])
def test_what_one_caller_changes_does_not_show_in_anothers(cache, value) -> None:
    c = cache()
    first = c.cached("k", lambda: value)
    second, third = c.cached("k", _fail), c.cached("k", _fail)
    assert first == second == third
    assert second is not third
    assert c.stats().hot_hits == 0
    assert c.stats().hits == 2


def test_sharing_is_opt_in(cache) -> None:
    c = cache(hot_objects="share")
    mine = c.cached("k", lambda: [1, 2])
    assert c.cached("k", _fail) is not mine, "not what fn returned: its caller may still change that"
    assert c.cached("k", _fail) is c.cached("k", _fail)


def test_nothing_is_kept_when_it_is_switched_off(cache) -> None:
    c = cache(hot_objects=False)
    for _ in range(5):
        assert c.cached("k", lambda: "v") == "v"
    stats = c.stats()
    assert (stats.hot_hits, stats.hits) == (0, 4)


def test_keys_that_python_takes_for_equal_are_not_conflated(cache) -> None:
    c = cache()
    keys: list[Any] = [1, True, 1.0, "1", b"1", (1,), (True,), (1.0,), 0, False, 0.0, b"s1", ("s1",), (b"(",)]
    for _ in range(3):
        for n, key in enumerate(keys):
            assert c.cached(key, lambda n=n: f"value {n}") == f"value {n}"
    assert c.stats().computations == len(keys)


@pytest.mark.parametrize("value", ["text", [1], b"x" * 3000, {"d": 1}])
def test_a_reset_by_another_process_is_seen_by_the_very_next_call(settings, cache, value) -> None:
    c = cache()
    other = Child(_reset_on_demand, settings())
    for n in range(200):
        assert c.cached("k", lambda n=n: (value, n))[1] == n
        assert c.cached("k", _fail)[1] == n
        assert c.cached("k", _fail)[1] == n
        other.send("reset")
        assert other.receive() == "done"
    other.send("stop")
    other.result()


def _reset_on_demand(conn: Any, settings: Any) -> None:
    coopshm.configure(settings)
    while conn.recv() == "reset":
        coopshm.reset("c")
        conn.send("done")


def test_hot_objects_are_bounded_by_number_and_by_bytes(cache) -> None:
    c = cache(max_items=20_000, memory_limit="64 MiB")
    for n in range(hot.ITEMS_MAX + 500):
        c.cached(n, lambda n=n: str(n))
    assert len(c._hot.tables.scalars) == hot.ITEMS_MAX
    c.reset()
    for n in range(1000):
        c.cached(n, lambda: b"x" * 30_000)
    kept = c._hot.tables.scalars
    assert sum(map(sys.getsizeof, kept.values())) <= hot.PROCESS_BYTES_MAX
    assert 200 < len(kept) < 1000
    c.cached("large", lambda: b"x" * (hot.VALUE_BYTES_MAX + 1))
    assert "large" not in kept
    assert clean(c)


class _Resets:
    """Resets the cache when it ends, if that is what it is to do."""

    cache: coopshm.Cache | None = None

    def __del__(self) -> None:
        cache, _Resets.cache = _Resets.cache, None
        if cache is not None:
            cache.reset()


@pytest.fixture
def one_that_resets_as_it_gives_way(cache, monkeypatch) -> coopshm.Cache:
    """A cache whose only hot object resets it when another one takes its place, within the call for that one."""
    monkeypatch.setattr(hot, "ITEMS_MAX", 1)
    c: coopshm.Cache = cache(hot_objects="share")
    c.cached("k", lambda: ["old"])
    c.cached("kept", _Resets)
    c.cached("kept", _fail)
    gc.collect()
    monkeypatch.setattr(_Resets, "cache", c)
    return c


def test_what_a_hit_found_is_old_when_the_end_of_another_value_has_reset(one_that_resets_as_it_gives_way) -> None:
    c = one_that_resets_as_it_gives_way
    assert c.cached("k", lambda: ["new"]) == ["new"]
    assert _Resets.cache is None


def test_so_is_what_a_look_up_in_python_found(one_that_resets_as_it_gives_way) -> None:
    c = one_that_resets_as_it_gives_way
    assert c._look_up(keys.encode_key("k"), "k") is hot.MISSING
    assert _Resets.cache is None


def test_so_is_what_was_computed(one_that_resets_as_it_gives_way) -> None:
    c = one_that_resets_as_it_gives_way
    values = iter(["old", "new"])
    assert c.cached("computed", lambda: next(values)) == "new"
    assert _Resets.cache is None


_UNDER_B = """
import sys, warnings
import coopshm

coopshm.configure({"namespace": sys.argv[1], "caches": {"c": {"memory_limit": "4 MiB"}}})
c, others = coopshm.open("c"), []

def show(*_, **__):
    c.reset()
    for key in ("other", "and another one"):
        c.cached(key, lambda: 1)
    others.extend({"k": "none of the cache's"} for _ in range(1000))  # where the tables were

warnings.showwarning = show
warnings.simplefilter("always")
for _ in range(3):
    assert c.cached(b"k", lambda: "of bytes") == "of bytes"
for _ in range(3):
    assert c.cached("k", lambda: "of str") == "of str"
    assert c.cached(("k",), lambda: "of a tuple") == "of a tuple"
    assert c.cached((b"k",), lambda: "of another one") == "of another one"
assert not others
assert c.stats().hot_hits == 0
"""


@pytest.mark.parametrize("flag", ["-b", "-bb"])
def test_nothing_is_kept_where_a_look_up_in_a_dict_may_run_anybodys_code(namespace, flag) -> None:
    command = [sys.executable, flag, "-c", _UNDER_B, namespace]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("levels", [40, 900, 2000, 5000])
def test_a_value_in_many_levels_of_tuples_is_returned_as_any_other(cache, levels) -> None:
    c = cache()
    value: Any = "v"
    for _ in range(levels):
        value = (value,)
    for _ in range(3):
        found = c.cached("k", lambda: value)
        for _ in range(levels):
            (found,) = found
        assert found == "v"
    assert c.stats().hot_hits == 0


def test_nothing_remembered_holds_a_pin(cache) -> None:
    c = cache(hot_objects="share")
    c.cached("array", lambda: np.arange(50_000))
    array = c.cached("array", _fail)
    assert c.stats().pinned_chunks > 0
    del array
    gc.collect()
    assert clean(c)


def test_what_is_not_stored_is_not_kept(cache) -> None:
    c = cache(memory_limit="64 KiB")
    assert c.cached("nocache", lambda: coopshm.NoCache("v")) == "v"
    assert c.cached("large", lambda: "v" * 100_000)
    assert not c._hot.tables.scalars
    calls = []
    for _ in range(3):
        c.cached("nocache", lambda: coopshm.NoCache(calls.append(1)))
    assert len(calls) == 3


def test_hits_of_every_kind_are_counted_exactly(cache) -> None:
    c = cache()
    c.cached("hot", lambda: "v")
    c.cached("cold", lambda: [1])
    for _ in range(10_000):
        c.cached("hot", _fail)
        c.cached("cold", _fail)
    stats = c.stats()
    assert stats.hot_hits + stats.hits == 20_000


class Gone:
    """A class that a deploy removes."""


def test_an_entry_that_cannot_be_decoded_any_more_is_computed_anew(cache, monkeypatch) -> None:
    c = cache()
    c.cached("k", Gone)
    assert isinstance(c.cached("k", _fail), Gone)
    monkeypatch.delattr("tests.test_hot.Gone")
    assert c.cached("k", lambda: "new") == "new"
    assert c.stats().bypasses["decode"] == 1
