"""P3: what was handed out never changes. Pins come and go with views."""

from __future__ import annotations

import gc
import hashlib
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest

import coopshm
from tests.conftest import clean
from tests.procs import Child, run


def _digest(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def _fill_and_reset(index: int, settings: Any, rounds: int) -> bool:
    coopshm.configure(settings)
    for n in range(rounds):
        for i in range(6):
            coopshm.cached("c", ("fill", index, n, i), lambda n=n: bytes([n % 256]) * 40_000)
        coopshm.reset("c")
    return True


def test_views_and_arrays_stay_unchanged_across_a_thousand_resets_with_writers(settings, cache) -> None:
    c = cache(memory_limit="2 MiB")
    view = c.view("bytes", lambda: b"stable" * 20_000)
    c.cached("array", lambda: np.arange(30_000))
    array = c.cached("array", lambda: pytest.fail("stored"))
    pickled = c.cached("mixed", lambda: {"a": np.ones(5_000), "b": [1, 2]})
    pickled = c.cached("mixed", lambda: pytest.fail("stored"))
    assert view is not None
    assert not array.flags.writeable
    assert view.readonly
    before = [_digest(view), _digest(array), _digest(pickled["a"])]
    assert c.stats().pinned_chunks > 0
    run(4, _fill_and_reset, settings(memory_limit="2 MiB"), 250)
    assert c.stats().resets >= 1000
    assert [_digest(view), _digest(array), _digest(pickled["a"])] == before
    assert c.stats().pinned_chunks > 0
    assert c.verify() == []
    del view, array, pickled
    gc.collect()
    assert clean(c), "released chunks are free again"


def test_released_chunks_come_back_after_the_next_reset(cache) -> None:
    c = cache(memory_limit="64 KiB")
    views = [c.view(n, lambda n=n: bytes([n]) * 5000) for n in range(10)]
    c.reset()
    assert c.cached("large", lambda: b"x" * 50_000) == b"x" * 50_000
    assert c.get("large") is None, "the pinned chunks are not reused"
    assert [bytes(view[:1]) for view in views if view is not None] == [bytes([n]) for n in range(10)]
    views.clear()
    gc.collect()
    c.reset()
    c.cached("large", lambda: b"x" * 50_000)
    assert c.get("large") == b"x" * 50_000
    assert clean(c)


def test_chunks_released_within_a_generation_are_found_again(cache) -> None:
    c = cache(memory_limit="64 KiB")
    views = [c.view(n, lambda n=n: bytes([n]) * 5000) for n in range(10)]
    c.reset()
    n = 0
    while not c.stats().full:
        c.cached(("a", n), lambda: b"x" * 3000)
        n += 1
    views.clear()
    gc.collect()
    before = c.stats().entries
    # The allocator looks again after a tenth of a second, so as to keep a full cache cheap.
    while c.stats().entries == before:
        c.cached(("b", n), lambda: b"x" * 3000)
        n += 1
    assert clean(c)


def test_slices_and_arrays_made_from_a_view_keep_its_pin(cache) -> None:
    c = cache()
    view = c.view("k", lambda: b"0123456789" * 1000)
    assert view is not None
    part = np.frombuffer(view[10:20], np.uint8)
    del view
    gc.collect()
    assert c.stats().pinned_chunks == 1
    assert bytes(part) == b"0123456789"
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 1
    del part
    gc.collect()
    assert clean(c)


def test_arrays_are_aligned_and_share_memory(cache) -> None:
    c = cache(memory_limit="16 MiB")
    c.cached(("odd", 1), lambda: b"misalign")
    c.cached("k", lambda: [np.arange(100_000), np.ones(50_000, np.float32)])
    first = c.cached("k", lambda: pytest.fail("stored"))
    second = c.cached("k", lambda: pytest.fail("stored"))
    for a, b in zip(first, second, strict=True):
        assert a.ctypes.data % 64 == 0
        assert np.shares_memory(a, b)
    assert (first[0] == np.arange(100_000)).all()


def test_an_array_over_the_arena_cannot_be_made_writable(cache) -> None:
    c = cache()
    c.cached("k", lambda: np.arange(50_000))
    array = c.cached("k", lambda: pytest.fail("stored"))
    assert c.stats().pinned_chunks > 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises((TypeError, ValueError)):
        memoryview(array.base)[0] = 1


def test_a_batch_of_views_leaks_no_pins(cache) -> None:
    c = cache()
    c.cached("k", lambda: np.arange(10_000))
    for _ in range(5000):
        c.cached("k", lambda: pytest.fail("stored"))
    gc.collect()
    assert clean(c)


def test_view_of_what_is_not_bytes_is_refused(cache) -> None:
    c = cache()
    c.cached("k", lambda: {"not": "bytes"})
    with pytest.raises(TypeError, match="view"):
        c.view("k")
    assert c.view("absent") is None


def test_a_view_is_not_of_a_generation_that_ended_while_it_was_made(cache, monkeypatch) -> None:
    c = cache()
    values = iter([b"old", b"new"])
    ask = c._ask

    def then_reset(*args: Any) -> Any:
        value = ask(*args)
        if value == b"old":
            c.reset()
        return value

    monkeypatch.setattr(c, "_ask", then_reset)
    assert c.view("k", lambda: next(values)) == b"new"


def test_a_view_of_what_is_not_stored_is_a_view_all_the_same(cache) -> None:
    c = cache(memory_limit="64 KiB")
    assert c.view("large", lambda: b"x" * 100_000) == b"x" * 100_000
    assert c.view("now", lambda: coopshm.NoCache(b"now")) == b"now"
    assert c.view("now") is None


def _hold_view(conn: Any, settings: Any) -> None:
    coopshm.configure(settings)
    view = coopshm.open("c").view("k")
    conn.send(view is not None)
    conn.recv()


def test_pins_of_a_killed_process_bind_nobody(settings, cache) -> None:
    c = cache(memory_limit="64 KiB")
    c.cached("k", lambda: b"x" * 30_000)
    child = Child(_hold_view, settings(memory_limit="64 KiB"))
    assert child.receive()
    assert c.stats().pinned_chunks > 0
    child.kill()
    assert c.stats().pinned_chunks == 0
    c.reset()
    c.cached("large", lambda: b"y" * 50_000)
    assert c.get("large") == b"y" * 50_000
    assert clean(c)


def test_the_interpreter_may_exit_with_live_views(settings, namespace) -> None:
    program = f"""
        import coopshm, numpy
        coopshm.configure({settings()!r})
        c = coopshm.open("c")
        view = c.view("k", lambda: b"x" * 10_000)
        c.cached("a", lambda: numpy.arange(10_000))
        array = c.cached("a", None)
        cycle = [view, array]
        cycle.append(cycle)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
