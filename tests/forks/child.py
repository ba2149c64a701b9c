"""What a process finds when another one has made it, and whether it can then do everything by itself.

`begin` runs in the new process. An assertion that fails ends it with a traceback and an exit code; else it says that it
is ready, and ends as it is told.
"""

from __future__ import annotations

import ctypes
import os
import signal
from multiprocessing.connection import Connection
from typing import Any

import pytest

import coopshm
from coopshm._codes import JOINED, OK, TIMEOUT
from coopshm._segment import lib
from coopshm.keys import encode_key
from tests import raw
from tests.forks import situations
from tests.forks.situations import HOLD_A_KEY, HOLD_THE_RESET_LOCK, LARGE, LARGE_KEY


def begin(conn: Connection, settings: Any, situation: str, parents_row: int, forked: bool) -> None:
    if not forked:
        assert raw.descriptors(settings["namespace"]) == [], "the parent's descriptor is closed on exec"
        coopshm.configure(settings)
    cache = coopshm.open("c")
    inherits_nothing(cache, settings["namespace"], parents_row, forked, views=situation == "view_alive")
    reads(cache)
    respects_what_is_held(cache, situation)
    computes(cache, unlocked=situation != "write_lock_held")
    (fd,) = raw.descriptors(settings["namespace"])
    assert raw.row(cache) not in (raw.NO_ROW, parents_row)
    assert raw.locks(fd) == 2, "its row, and that it is an app"
    conn.send(("ready", os.getpid()))
    end(cache, conn, conn.recv())


def inherits_nothing(cache: coopshm.Cache, namespace: str, parents_row: int, forked: bool, views: bool) -> None:
    descriptors = raw.descriptors(namespace)
    assert len(descriptors) == 1
    if forked and views:  # they alone go with a child, and its row with them
        assert raw.row(cache) not in (raw.NO_ROW, parents_row)
        assert raw.pins(cache) > 0
        (view,) = situations.views
        assert bytes(view) == LARGE
    elif forked:
        assert raw.row(cache) == raw.NO_ROW
        assert raw.locks(descriptors[0]) == 0, "a description of its own"
        assert raw.pins(cache) == 0
    else:
        assert raw.row(cache) not in (raw.NO_ROW, parents_row)


def reads(cache: coopshm.Cache) -> None:
    def never() -> bytes:
        raise AssertionError("it is stored")

    assert cache.cached(LARGE_KEY, never) == LARGE
    before = raw.pins(cache)
    view = cache.view(LARGE_KEY)
    assert view is not None
    assert bytes(view) == LARGE
    assert raw.pins(cache) > before
    view.release()
    assert raw.pins(cache) == before


def respects_what_is_held(cache: coopshm.Cache, situation: str) -> None:
    segment = cache._attachment.segment
    if situation in HOLD_A_KEY:
        call = segment.call()
        assert segment.claim(call, encode_key("held"), None) == JOINED, "the computation is another process's"
        segment.release(call)
    held = situation in HOLD_THE_RESET_LOCK
    assert lib.csm_reset_lock(segment.handle, 0) == (TIMEOUT if held else OK)
    if not held:
        segment.reset_unlock()


def computes(cache: coopshm.Cache, unlocked: bool) -> None:
    mine, bypassed = ("child's", os.getpid()), cache.stats().bypasses["lock"]
    assert cache.cached(mine, lambda: [os.getpid()]) == [os.getpid()]
    assert (cache.get(mine) is not None) == unlocked
    if not unlocked:
        assert cache.stats().bypasses["lock"] == bypassed + 1
        return
    assert cache.cached((mine, "nested"), lambda: cache.cached((mine, "inner"), lambda: 2.5)) == 2.5
    assert cache.cached((mine, "no"), lambda: coopshm.NoCache("not stored")) == "not stored"
    with pytest.raises(ZeroDivisionError):
        cache.cached((mine, "fails"), lambda: 1 // 0)
    assert cache.verify() == []


def end(cache: coopshm.Cache, conn: Connection, how: str) -> None:
    for view in situations.views:  # only a fork has any
        assert bytes(view) == LARGE
        if how != "exit with views":
            view.release()
            assert raw.pins(cache) == 0
    if how.startswith("exit"):
        ctypes.pythonapi.Py_Exit(0)  # in a fork, too: with finalizers, and whatever else Python does at its end
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    assert how == "_exit"
    conn.close()
    os._exit(0)
