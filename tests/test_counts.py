"""Each hit is counted in shared memory by the time it returns: whatever ends a process, none is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

import coopshm
from tests import raw
from tests.conftest import clean
from tests.procs import Child, ended_well, forked, threads


def _fail() -> Any:
    raise AssertionError("it is stored")


def _hit(c: coopshm.Cache, times: int, key: str = "hot") -> None:
    for _ in range(times):
        c.cached(key, _fail)


def _store(c: coopshm.Cache) -> None:
    """From now on "hot" is a hot object, and "cold" is not, since it could be changed."""
    c.cached("hot", lambda: "v")
    c.cached("cold", lambda: ["v"])


def _counts(c: coopshm.Cache) -> tuple[int, int]:
    stats = c.stats()
    return stats.hits, stats.hot_hits


def _hits_and_ends(conn: Any, settings: Any, end: str, hot: int, cold: int) -> None:
    coopshm.configure(settings)
    c = coopshm.open("c")
    _store(c)
    _hit(c, hot)
    _hit(c, cold, "cold")
    conn.send("done")
    conn.recv()
    if end == "os._exit":
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("hot", [1, 4095, 4096, 10_000])
@pytest.mark.parametrize("end", ["os._exit", "SIGKILL"])
def test_each_hit_of_a_process_that_does_not_exit_properly_is_counted(settings, cache, end, hot) -> None:
    c = cache()
    child = Child(_hits_and_ends, settings(), end, hot, 25)
    assert child.receive() == "done"
    assert _counts(c) == (25, hot), "already while it lives"
    child.send("end")
    child.wait_dead()
    assert _counts(c) == (25, hot)
    assert clean(c)


def test_hits_of_all_generations_are_counted(settings, cache) -> None:
    c = cache()
    child = Child(_hits_between_resets, settings())
    for generation in range(1, 6):
        assert child.receive() == generation
        c.reset()
        child.send("next")
    assert child.receive() == "last"
    child.kill()
    assert _counts(c)[1] == sum(range(1, 6)) + 7


def _hits_between_resets(conn: Any, settings: Any) -> None:
    coopshm.configure(settings)
    c = coopshm.open("c")
    for generation in range(1, 6):
        c.cached("hot", lambda: "v")
        _hit(c, generation)
        conn.send(generation)
        conn.recv()
    c.cached("hot", lambda: "v")
    _hit(c, 7)
    conn.send("last")
    conn.recv()


def _forks(conn: Any, settings: Any, body: Callable[[coopshm.Cache], None]) -> Any:
    coopshm.configure(settings)
    c = coopshm.open("c")
    _store(c)
    _hit(c, 10)
    view = c.view("bytes", lambda: b"x" * 100_000)
    if body is not _hits_with_a_view:
        view = None
    assert os.waitstatus_to_exitcode(os.waitpid(forked(lambda: body(c)), 0)[1]) == -signal.SIGKILL
    _hit(c, 10)
    return view is not None


def _hits_hot(c: coopshm.Cache) -> None:
    assert raw.row(c) == raw.NO_ROW
    _hit(c, 5)
    os.kill(os.getpid(), signal.SIGKILL)


def _hits_cold(c: coopshm.Cache) -> None:
    assert raw.row(c) == raw.NO_ROW
    _hit(c, 5, "cold")
    os.kill(os.getpid(), signal.SIGKILL)


def _hits_with_a_view(c: coopshm.Cache) -> None:
    assert raw.row(c) != raw.NO_ROW
    _hit(c, 5)
    os.kill(os.getpid(), signal.SIGKILL)


def _hits_in_threads(c: coopshm.Cache) -> None:
    """The first hits of all of them meet in one process that has no row."""
    assert raw.row(c) == raw.NO_ROW
    assert threads(8, lambda n: _hit(c, 3000, "cold" if n % 2 else "hot")) == [None] * 8
    os.kill(os.getpid(), signal.SIGKILL)


def _hits_in_a_grandchild(c: coopshm.Cache) -> None:
    _hit(c, 3)
    ended_well(forked(lambda: _hit(c, 4)))
    _hit(c, 1)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("body", "hits", "hot_hits"),
    [
        (_hits_hot, 0, 5),
        (_hits_cold, 5, 0),
        (_hits_with_a_view, 0, 5),
        (_hits_in_threads, 12_000, 12_000),
        (_hits_in_a_grandchild, 0, 8),
    ],
)
def test_a_forked_child_that_only_hits_counts_by_itself(settings, cache, body, hits, hot_hits) -> None:
    c = cache()
    child = Child(_forks, settings(), body)
    assert child.result() is (body is _hits_with_a_view)
    of_the_view = 2  # after the computation, and to be handed out
    assert _counts(c) == (hits + of_the_view, 20 + hot_hits), "none of the parent's is counted twice"
    assert clean(c)


def _keeps_the_cache_alive(conn: Any, settings: Any) -> None:
    coopshm.configure(settings)
    coopshm.open("c")
    conn.send("attached")
    conn.recv()


def test_hits_after_the_descriptor_was_closed_are_counted_once_the_process_has_rejoined(
    settings, cache, namespace
) -> None:
    c = cache()
    other = Child(_keeps_the_cache_alive, settings())
    assert other.receive() == "attached"
    _store(c)
    _hit(c, 10)
    (fd,) = raw.descriptors(namespace)
    os.close(fd)
    assert c._attachment.segment.gone(), "it finds out"
    _hit(c, 10)
    _hit(c, 3, "cold")
    c.cached("a miss", lambda: 1)
    assert raw.row(c) != raw.NO_ROW
    assert _counts(c) == (3, 20)
    _hit(c, 1)
    assert _counts(c) == (4, 20), "found in the segment, and hot from here on"
    _hit(c, 1)
    assert _counts(c) == (4, 21)
    assert clean(c)


def test_hits_of_a_destroyed_segment_are_not_the_new_ones(cache) -> None:
    c = cache()
    _store(c)
    _hit(c, 10)
    c.destroy()
    c.cached("hot", lambda: "v")
    _hit(c, 4)
    assert _counts(c) == (0, 4)
