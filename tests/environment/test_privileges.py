"""Workers that drop privileges, as root's servers do: what they have from before stays theirs to use."""

from __future__ import annotations

import os
import struct
from typing import Any

import numpy as np
import pytest

import coopshm
from tests import raw
from tests.conftest import SHM, clean
from tests.procs import Child, ended_well, forked, threads, until

NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="expected: only root can drop privileges")


def _drop() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    with pytest.raises(PermissionError):
        open("/etc/shadow").close()


def _everything(c: coopshm.Cache) -> None:
    me = os.getpid()
    assert c.cached("before", lambda: "no") == "root's"
    for n in range(30):  # chunks that nobody has entered yet: pages are reserved without privileges, too
        assert c.cached((me, n), lambda n=n: bytes([n]) * 60_000) == c.get((me, n)) == bytes([n]) * 60_000
    assert raw.row(c) != raw.NO_ROW
    array = np.arange(50_000)
    assert (c.cached((me, "array"), lambda: array) == array).all()
    view = c.view((me, 1))
    assert raw.pins(c) > 0
    assert view == bytes([1]) * 60_000
    assert view is not None
    view.release()
    assert raw.pins(c) == 0
    with pytest.raises(ZeroDivisionError):
        c.cached((me, "fails"), lambda: 1 // 0)

    def shared() -> object:
        until(lambda: c.stats().waiters >= 3)
        return coopshm.NoCache(b"payload" * 10_000)  # by way of the file, behind all that is mapped

    assert threads(4, lambda _: c.cached((me, "not stored"), shared)) == [b"payload" * 10_000] * 4
    assert c.stats().bypasses["rows"] == 0
    assert c.reset(f"by {me}") == c.version() == f"by {me}"
    assert c.get((me, 1)) is None
    assert c.cached("before", lambda: "root's") == "root's"
    assert clean(c)


def _master(_: Any, settings: Any, row_first: bool) -> None:
    coopshm.configure(settings)
    c = coopshm.open("c")
    c.cached("before", lambda: "root's")

    def worker() -> None:
        assert raw.row(c) == raw.NO_ROW
        if row_first:
            assert c.cached("as root", lambda: 1) == 1
            assert raw.row(c) != raw.NO_ROW
        _drop()
        _everything(c)

    for _ in range(3):
        ended_well(forked(worker))
    assert c.stats().processes == 1
    assert c.cached("after", lambda: 2) == c.get("after") == 2
    assert clean(c)


@root_only
@pytest.mark.parametrize("row_first", [False, True], ids=["its row after it", "its row before it"])
def test_a_worker_that_drops_privileges_does_everything(settings, namespace, row_first) -> None:
    Child(_master, settings(max_items=500), row_first).result()


def _grandchildren(_: Any, settings: Any) -> None:
    coopshm.configure(settings)
    c = coopshm.open("c")
    c.cached("before", lambda: "root's")
    array = np.arange(50_000)
    c.cached("array", lambda: array)
    user = settings["caches"]["c"].get("user")

    def grandchild() -> None:
        if user is not None:
            _everything(c)
            return
        # Its parent could not open the object again for it. It has what is stored, and computes the rest for itself.
        assert c.cached("before", lambda: "no") == "root's"
        assert (c.cached("array", lambda: None) == array).all()
        assert c.cached("new", lambda: 3) == 3
        assert c.get("new") is None
        assert c.stats().bypasses["rows"] > 0

    def worker() -> None:
        _drop()
        c.cached("worker's", lambda: 1)
        ended_well(forked(grandchild))
        assert c.cached("still", lambda: 2) == c.get("still") == 2

    ended_well(forked(worker))
    assert clean(c)


@root_only
@pytest.mark.parametrize("user", [None, NOBODY], ids=["without `user`", "with `user`"])
def test_the_children_of_such_a_worker_are_answered(settings, namespace, user) -> None:
    options = {} if user is None else {"user": user}
    Child(_grandchildren, settings(max_items=500, **options)).result()


# ---- what another release, another libc or another word size has made


@pytest.mark.parametrize(
    ("at", "data"),
    [(0, b"NOTOURS!"), (8, struct.pack("<I", 99)), (12, struct.pack("<I", 16 << 8 | 2)), (12, struct.pack("<I", 33))],
    ids=["magic", "layout version", "libc", "sem_t of a 32-bit process"],
)
def test_a_segment_of_another_release_or_libc_is_an_error_that_names_the_remedy(settings, namespace, at, data) -> None:
    holder = Child(_hold, settings())
    assert holder.receive() == "open"
    path = SHM / f"coopshm:{namespace}:c"
    with path.open("r+b") as file:
        file.seek(at)
        mine = file.read(len(data))
        file.seek(at)
        file.write(data)
    coopshm.configure(settings())
    with pytest.raises(
        coopshm.LayoutError, match=r"another version.*another C library.*own namespace, or stop"
    ) as raised:
        coopshm.cached("c", "k", lambda: 1)
    assert str(path) in str(raised.value)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(mine)
    assert coopshm.cached("c", "k", lambda: 1) == 1, "it was left as it is"
    holder.send("end")
    assert holder.result() is None


def _hold(conn: Any, settings: Any) -> None:
    coopshm.configure(settings)
    c = coopshm.open("c")
    conn.send("open")
    conn.recv()
    assert c.get("k") == 1
