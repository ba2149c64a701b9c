"""Fork: a child has no ticket, no lock and no row of its parent's; live views, and nothing else, go with it."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
from collections.abc import Callable
from typing import Any

import coopshm
from tests.conftest import clean
from tests.procs import Child


def forked(body: Callable[[], Any]) -> str:
    """Run `body` in a forked child; return the repr of what it returned, or of what it raised."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            try:
                answer = repr(body())
            except BaseException as exc:
                answer = repr(exc)
            os.write(write, answer.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(pid, 0)
    return answer


# Each test runs in a process of its own without threads: forking one with threads is what Python warns of.


def _attached(_: Any, settings: Any) -> None:
    coopshm.configure(settings)
    c = coopshm.open("c")
    c.cached("before", lambda: 1)
    rows = c.stats().processes

    def child() -> Any:
        first = c._attachment.segment.describe().processes
        assert c.cached("before", lambda: 2) == 1
        c.cached("child's", lambda: 3)
        return first, c.stats().processes, os.listdir("/proc/self/fd").__len__()

    before = len(os.listdir("/proc/self/fd"))
    seen, after, descriptors = eval(forked(child))
    assert (seen, after) == (rows, rows + 1), "a row is taken when it is first needed"
    assert descriptors - 1 <= before + 1, "no descriptor of the parent's is kept"
    assert c.stats().processes == rows, "and gone with the child"
    assert c.get("child's") == 3
    assert clean(c)


def test_fork_with_the_cache_attached(settings, namespace) -> None:
    Child(_attached, settings()).result()


def _view(_: Any, settings: Any) -> None:
    coopshm.configure(settings)
    c = coopshm.open("c")
    held = [c.view("k", lambda: b"stable" * 5000)]
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(write)
            os.read(read, 1)  # until the parent has let go and filled the arena anew
            good = bytes(held[0]) == b"stable" * 5000 and c.stats().pinned_chunks > 0
            held.clear()
            gc.collect()
            os._exit(0 if good and c.stats().pinned_chunks == 0 else 1)
        finally:
            os._exit(2)
    os.close(read)
    assert c.stats().processes == 2, "the child's row, made before it was born"
    held.clear()
    gc.collect()
    assert c.stats().pinned_chunks > 0, "the child's pins"
    for n in range(40):
        c.reset()
        for i in range(8):
            c.cached((n, i), lambda: b"other!" * 5000)
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert clean(c)


def test_fork_with_a_live_view_each_side_releases_its_own(settings, namespace) -> None:
    Child(_view, settings(memory_limit="256 KiB")).result()


def _in_flight(_: Any, settings: Any) -> None:
    coopshm.configure(settings)
    c = coopshm.open("c")
    children = []

    def fn() -> str:
        pid = os.fork()
        if pid == 0:
            return "the child's"
        children.append(pid)
        os.waitpid(pid, 0)
        return "the parent's"

    value = c.cached("k", fn)
    if not children:  # the child: its ticket is its parent's, and no good; it must not wait for the parent either
        os._exit(0 if value == "the child's" and c.get("k") is None else 1)
    assert value == "the parent's"
    assert c.get("k") == "the parent's"
    assert c.stats().bypasses["forked"] == 1
    assert clean(c)


def test_an_fn_that_forks_only_the_parent_publishes(settings, namespace) -> None:
    Child(_in_flight, settings()).result()


def _owner_dies_child_lives(conn: Any, settings: Any) -> None:
    coopshm.configure(settings)
    c = coopshm.open("c")

    def fn() -> None:
        if os.fork() == 0:
            conn.recv()  # lives on, with everything it has inherited
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

    c.cached("k", fn)


def test_a_forked_child_does_not_keep_its_dead_parent_alive(settings, cache) -> None:
    c = cache()
    child = Child(_owner_dies_child_lives, settings())
    child.wait_dead()
    assert c.cached("k", lambda: "taken over") == "taken over"
    assert c.stats().takeovers == 1
    child.send("end")
    assert clean(c)


def _from_c(_: Any, settings: Any) -> None:
    coopshm.configure(settings)
    c = coopshm.open("c")
    c.cached("k", lambda: 1)
    libc = ctypes.PyDLL(None)  # without Python's fork hooks, as uWSGI does
    pid = libc.fork()
    if pid == 0:
        try:
            good = c.cached("k", lambda: 2) == 1 and c.cached("new", lambda: 3) == 3 and c.stats().processes == 2
        except BaseException:
            os._exit(2)
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert c.get("new") == 3
    assert clean(c)


def test_fork_from_c_without_pythons_hooks(settings, namespace) -> None:
    Child(_from_c, settings()).result()


def _dropped_privileges(_: Any, settings: Any) -> None:
    coopshm.configure(settings)
    c = coopshm.open("c")
    c.cached("k", lambda: "root's")

    def child() -> Any:
        os.setgid(65534)
        os.setuid(65534)
        return c.cached("k", lambda: "no"), c.cached("mine", lambda: "dropped"), c.reset("by the worker"), c.version()

    assert forked(child) == repr(("root's", "dropped", "by the worker", "by the worker"))
    assert c.version() == "by the worker"
    assert clean(c)


def test_a_worker_that_drops_privileges_after_the_fork(settings, namespace) -> None:
    import pytest

    if os.geteuid() != 0:
        pytest.skip("expected: only root can drop privileges")
    Child(_dropped_privileges, settings()).result()


def _generations(_: Any, settings: Any) -> None:
    coopshm.configure(settings)
    c = coopshm.open("c")

    def grandchild() -> Any:
        c.reset("deep")
        return c.cached("k", lambda: "grandchild's")

    assert forked(lambda: forked(grandchild)) == repr(repr("grandchild's"))
    assert c.version() == "deep"
    assert c.get("k") == "grandchild's"
    assert clean(c)


def test_children_of_children(settings, namespace) -> None:
    Child(_generations, settings()).result()
