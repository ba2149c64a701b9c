"""The situations in which a process makes another one.

Each takes the cache and what to do in the middle of it, and afterwards checks that this process got its own way. `held`
is the key of a computation under way, if there is one: of this process, or one that it waits for.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import coopshm
from coopshm._codes import OK
from coopshm._segment import lib
from tests import raw
from tests.procs import WATCHDOG, until

Do = Callable[[], Any]

LARGE = b"stable" * 5000
LARGE_KEY = "large"


def callback(_version: object) -> None:
    """The caches' `on_reset`."""
    if in_callback:
        in_callback.pop()()


in_callback: list[Do] = []


@contextlib.contextmanager
def _thread(body: Callable[[threading.Event, threading.Event], None]) -> Iterator[None]:
    """Runs `body(here, go)` beside: it says when it is where it should be, and goes on when told to."""
    here, go, failed = threading.Event(), threading.Event(), []

    def run() -> None:
        try:
            body(here, go)
        except BaseException as exc:
            failed.append(exc)
            here.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert here.wait(WATCHDOG)
    yield
    go.set()
    thread.join(WATCHDOG)
    assert not thread.is_alive(), "the thread hangs"
    assert failed == []


def alone(_cache: coopshm.Cache, do: Do) -> None:
    do()


def threads_running(cache: coopshm.Cache, do: Do) -> None:
    """Hits, misses, failures and views in other threads, all the time."""

    def body(here: threading.Event, go: threading.Event) -> None:
        n = 0
        while not go.is_set():
            n += 1
            assert cache.cached(("busy", threading.get_ident(), n % 50), lambda: [1]) == [1]
            with contextlib.suppress(ZeroDivisionError):
                cache.cached(("fails", threading.get_ident()), lambda: 1 // 0)
            assert cache.cached(LARGE_KEY, bytes) == LARGE
            here.set()

    with _thread(body), _thread(body), _thread(body):
        do()


def view_alive(cache: coopshm.Cache, do: Do) -> None:
    view = cache.view(LARGE_KEY)
    assert view is not None
    views.append(view)
    try:
        do()
        assert bytes(view) == LARGE
        assert raw.pins(cache) > 0
    finally:
        views.clear()
        view.release()
    del view
    assert raw.pins(cache) == 0


views: list[memoryview] = []  # what a child has inherited


def computing(cache: coopshm.Cache, do: Do) -> None:
    def body(here: threading.Event, go: threading.Event) -> None:
        assert cache.cached("held", lambda: (here.set(), go.wait(WATCHDOG), "the parent's")[-1]) == "the parent's"

    with _thread(body):
        do()
    assert cache.get("held") == "the parent's"


def write_lock_held(cache: coopshm.Cache, do: Do) -> None:
    cache.stats()  # has a row
    raw.hold_write_lock(cache)
    do()
    raw.drop_write_lock(cache)
    assert cache.cached("afterwards", lambda: 1) == cache.get("afterwards") == 1


def reset_lock_held(cache: coopshm.Cache, do: Do) -> None:
    handle = cache._attachment.segment.handle

    def body(here: threading.Event, go: threading.Event) -> None:
        assert lib.csm_reset_lock(handle, 0) == OK
        here.set()
        assert go.wait(WATCHDOG)
        before = cache._attachment.segment.generation()
        assert lib.csm_reset_commit(handle, b"7", 1, 0) == OK
        assert cache._attachment.segment.generation() == before + 1
        lib.csm_reset_unlock(handle)

    with _thread(body):
        do()
    assert cache.version() == 7


def waiting(cache: coopshm.Cache, do: Do) -> None:
    """Another thread waits for what another process computes."""
    read, write = os.pipe()
    told, tell = os.pipe()
    owner = os.fork()
    if owner == 0:
        os.close(tell)
        cache.cached("held", lambda: (os.write(write, b"."), os.read(told, 1), "the owner's")[-1])
        os._exit(0)
    os.close(told)
    assert os.read(read, 1) == b"."

    def body(here: threading.Event, go: threading.Event) -> None:
        here.set()
        assert cache.cached("held", lambda: "mine") == "the owner's"

    with _thread(body):
        until(lambda: cache.stats().waiters >= 1)
        do()
        assert cache.stats().waiters == 1
        os.close(tell)
    assert os.waitpid(owner, 0)[1] == 0
    os.close(read)
    os.close(write)


def inside_fn(cache: coopshm.Cache, do: Do) -> None:
    def fn() -> str:
        do()
        return "the parent's"

    assert cache.cached("held", fn) == cache.get("held") == "the parent's"


def inside_callback(cache: coopshm.Cache, do: Do) -> None:
    in_callback.append(do)
    assert cache.reset("new") == cache.version() == "new"
    assert not in_callback


SITUATIONS: dict[str, Callable[[coopshm.Cache, Do], None]] = {
    situation.__name__: situation
    for situation in (
        alone,
        threads_running,
        view_alive,
        computing,
        write_lock_held,
        reset_lock_held,
        waiting,
        inside_fn,
        inside_callback,
    )
}
HOLD_A_KEY = ("computing", "waiting", "inside_fn")
HOLD_THE_RESET_LOCK = ("reset_lock_held", "inside_callback")
