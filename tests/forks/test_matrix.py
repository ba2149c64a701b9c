"""Every way to make a process, in every situation.

Promised: no row, pin, ticket, wait or lock of the parent's goes with the child, except the pins of live views; the
child works; the parent is not disturbed; each one's death is seen at once while the other lives; and nothing is left
behind.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

import coopshm
from tests import raw
from tests.conftest import clean
from tests.forks.child import begin
from tests.forks.situations import LARGE, LARGE_KEY, SITUATIONS
from tests.forks.ways import FORKS, FRESH, WAYS
from tests.procs import CONTEXT, Child

# A new interpreter gets nothing of its parent's but perhaps descriptors, so few situations can make a difference to it.
FOR_FRESH = ("alone", "threads_running", "view_alive", "computing")
# Where another thread may be about to ask for the GIL, a fork from C hangs in Python itself: the child hands the GIL to
# a thread that it does not have.
NOT_FROM_C = ("threads_running", "waiting")
MATRIX = [
    (way, situation)
    for way in WAYS
    for situation in SITUATIONS
    if not (way in FRESH and situation not in FOR_FRESH) and not (way == "fork_from_c" and situation in NOT_FROM_C)
]
every_way_in_every_situation = pytest.mark.parametrize(("way", "situation"), MATRIX)


def _attach(settings: Any) -> coopshm.Cache:
    coopshm.configure(settings)
    cache = coopshm.open("c")
    cache.cached(LARGE_KEY, lambda: LARGE)
    cache.stats()
    return cache


def _parent(_: Any, settings: Any, way: str, situation: str) -> None:
    cache, namespace = _attach(settings), settings["namespace"]

    def make_one(how: str) -> None:
        processes, files = cache.stats().processes, len(os.listdir("/proc/self/fd"))
        here, there = CONTEXT.Pipe()
        wait = WAYS[way](begin, there, settings, situation, raw.row(cache), way in FORKS)
        there.close()
        assert here.recv()[0] == "ready"
        assert cache.stats().processes == processes + 1
        here.send(how)
        assert wait() == (-signal.SIGKILL if how == "kill" else 0)
        assert cache.stats().processes == processes, "its death is seen at once"
        here.close()
        (fd,) = raw.descriptors(namespace)
        assert raw.locks(fd) == 2, "the parent's own row"
        if "multiprocessing" not in way:
            assert len(os.listdir("/proc/self/fd")) == files

    # A new interpreter takes a while; how it ends is no different from a fork's.
    hows = ("_exit", "exit", "exit with views", "kill") if way in FORKS else ("exit",)
    for how in hows:
        SITUATIONS[situation](cache, lambda how=how: make_one(how))
        assert clean(cache)
        cache.reset(how)
        cache.cached(LARGE_KEY, lambda: LARGE)
    assert cache.stats().processes == 1
    assert (cache.stats().takeovers, cache.stats().steals) == (0, 0), "nobody was taken for dead"


@every_way_in_every_situation
def test_a_child_begins_with_nothing_works_and_leaves_nothing(settings, namespace, way, situation) -> None:
    Child(_parent, settings(on_reset="tests.forks.situations:callback"), way, situation).result()


def _doomed(conn: Any, settings: Any, way: str, situation: str) -> None:
    cache = _attach(settings)

    def do() -> None:
        WAYS[way](begin, conn, settings, situation, raw.row(cache), way in FORKS)
        signal.pause()

    SITUATIONS[situation](cache, do)


@every_way_in_every_situation
def test_a_parents_death_is_seen_at_once_while_its_child_lives(settings, cache, way, situation) -> None:
    c = cache(on_reset="tests.forks.situations:callback")
    c.cached(LARGE_KEY, lambda: LARGE)
    parent = Child(_doomed, settings(on_reset="tests.forks.situations:callback"), way, situation)
    try:
        assert parent.receive()[0] == "ready"
        others = c.stats().processes - 2
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait_dead()
        assert c.stats().processes == others + 1
        if situation in ("computing", "inside_fn"):
            assert c.cached("held", lambda: "taken over") == "taken over"
            assert c.stats().takeovers == 1
        if situation == "write_lock_held":
            assert c.cached("stored", lambda: 1) == c.get("stored") == 1
            assert c.stats().steals == 1
        if situation == "waiting":
            assert c.stats().waiters == 0
        for n in range(3):  # whoever holds a reset lock is dead; and the child's inherited view must not be overwritten
            c.reset(("after", n))
            for i in range(300):
                c.cached(i, lambda: b"other!" * 5000)
        assert c.stats().full
        parent.send("exit")
        while c.stats().processes > 1:  # the child, and who noticed only by its end that it should end, too
            pass
        assert clean(c)
    finally:
        parent.conn.close()  # should the child still be there, this ends it
