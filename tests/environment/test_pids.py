"""PIDs mean nothing to the core: processes of two PID namespaces share a segment, and a PID is used again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import coopshm
from tests import raw
from tests.conftest import clean
from tests.namespaces import Inside, next_pid, pid_namespaces, with_small_shm
from tests.procs import Child, forked, until

pytestmark = pid_namespaces


def _attach(settings: Any) -> coopshm.Cache:
    coopshm.configure(settings)
    return coopshm.open("c")


# ---- two namespaces


def _own(conn: Any, settings: Any, lock: bool) -> None:
    c = _attach(settings)
    c.cached("large", lambda: b"x" * 100_000)
    view = c.view("large")

    def fn() -> None:
        if lock:
            raw.hold_write_lock(c)
        conn.send(("computing", os.getpid(), view is not None))
        conn.recv()
        os.kill(os.getpid(), signal.SIGKILL)

    c.cached("k", fn)


def _wait(conn: Any, settings: Any) -> None:
    c = _attach(settings)
    conn.send(os.getpid())
    conn.recv()
    conn.send(c.cached("k", lambda: "taken over"))
    conn.recv()


@pytest.mark.parametrize("lock", [False, True], ids=["owner", "holder of the write lock"])
@pytest.mark.parametrize("everything", [False, True], ids=["process", "namespace"])
def test_an_owner_killed_in_one_namespace_is_replaced_from_another(settings, cache, lock, everything) -> None:
    c = cache()
    waiter = Inside(_wait, settings())
    pid = waiter.receive()
    owner = Inside(_own, settings(), lock)
    assert owner.receive() == ("computing", pid, True), "each has the same PID"
    assert c.stats().pinned_chunks > 0
    if not lock:  # else it would not wait for long: a lock in the hands of who does not run is passed by
        waiter.send("ask")
        until(lambda: c.stats().waiters >= 1)
    assert c.stats().processes == 3
    if everything:
        owner.kill()
    else:
        owner.send("die")
        assert owner.wait() == 128 + signal.SIGKILL
    if lock:
        waiter.send("ask")
    assert waiter.receive() == "taken over"
    stats = c.stats()
    assert (stats.processes, stats.takeovers, stats.pinned_chunks) == (2, 1, 0)
    assert stats.steals == lock
    assert c.get("k") == "taken over"
    waiter.send("end")
    assert waiter.wait() == 0
    assert c.stats().processes == 1
    assert clean(c)


def test_an_owner_outside_is_replaced_from_a_namespace(settings, cache) -> None:
    c = cache()
    owner = Child(_own, settings(), False)
    assert owner.receive()[0] == "computing"
    waiter = Inside(_wait, settings())
    waiter.receive()
    waiter.send("ask")
    until(lambda: c.stats().waiters >= 1)
    owner.kill()
    assert waiter.receive() == "taken over"
    waiter.send("end")
    assert waiter.wait() == 0
    assert (c.stats().takeovers, c.stats().processes) == (1, 1)
    assert clean(c)


def test_a_live_owner_of_another_namespace_is_not_taken_for_dead(settings, cache) -> None:
    c = cache()
    owner = Inside(_compute, settings())
    assert owner.receive() == "computing"
    waiters = [Inside(_wait, settings()) for _ in range(3)]
    for waiter in waiters:
        waiter.receive()
        waiter.send("ask")
    until(lambda: c.stats().waiters >= 3)
    owner.send("go")
    assert [waiter.receive() for waiter in waiters] == ["the owner's"] * 3
    for child in [owner, *waiters]:
        child.send("end")
        assert child.wait() == 0
    assert (c.stats().takeovers, c.stats().computations) == (0, 1)
    assert clean(c)


def _compute(conn: Any, settings: Any) -> None:
    def fn() -> str:
        conn.send("computing")
        conn.recv()
        return "the owner's"

    assert _attach(settings).cached("k", fn) == "the owner's"
    conn.recv()


# ---- a PID is used again


def _reuse(what: str, attaches: bool) -> None:
    """The owner dies while the one that waits for it is stopped, and another process gets its PID, and perhaps its row,
    before anybody can look."""
    settings = {"caches": {"c": {"memory_limit": "4 MiB"}}}
    c = _attach(settings)
    c.cached("large", lambda: b"x" * 100_000)
    (here, there), (hold, release) = os.pipe(), os.pipe()

    def own() -> None:
        view = c.view("large")

        def fn() -> None:
            if what == "lock":
                raw.hold_write_lock(c)
            if what == "reset lock":
                assert coopshm._segment.lib.csm_reset_lock(c._attachment.segment.handle, 0) == 0
            os.write(there, b"%d\n" % raw.row(c))
            assert view is not None
            os.read(hold, 1)

        c.cached("k", fn)

    owner = forked(own)
    row = int(os.read(here, 100))

    def wait() -> None:
        if what == "lock":  # beside a living holder that does not run it would not wait for long
            os.kill(os.getpid(), signal.SIGSTOP)
        os.write(there, c.cached("k", lambda: "taken over").encode())

    waiter = forked(wait)
    if what != "lock":
        until(lambda: c.stats().waiters >= 1)
        os.kill(waiter, signal.SIGSTOP)
    while Path(f"/proc/{waiter}/stat").read_text().split()[2] != "T":
        pass
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)

    def impostor() -> None:
        if attaches:
            c._attachment.segment.count(0, 0)  # takes a row
            assert raw.row(c) == row, "the lowest free one"
            assert raw.pins(c) == 0
        os.write(there, b"impostor")
        os.read(hold, 1)

    next_pid(owner)
    again = forked(impostor)
    assert again == owner, "the same PID"
    assert os.read(here, 100) == b"impostor"
    os.kill(waiter, signal.SIGCONT)
    assert os.read(here, 100) == b"taken over"
    assert os.waitpid(waiter, 0)[1] == 0
    assert c.get("k") == "taken over"
    assert c.reset() == 2
    os.write(release, b".")
    assert os.waitpid(again, 0)[1] == 0
    stats = c.stats()
    assert (stats.takeovers, stats.steals, stats.processes) == (1, what == "lock", 1)
    assert clean(c)


@pytest.mark.parametrize("attaches", [False, True], ids=["a stranger", "another worker, in the same row"])
@pytest.mark.parametrize("what", ["computation", "lock", "reset lock"])
def test_whoever_gets_a_dead_owners_pid_is_not_taken_for_it(what, attaches) -> None:
    with_small_shm("32m", _reuse, what, attaches)
