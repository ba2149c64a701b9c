"""Never in the way: whatever the cache cannot do, the call is answered by calling `fn`, and counted by its cause.

What takes a thousand computations at once is held by this process; another one asks.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import coopshm
from coopshm._codes import FLIGHTS, JOINED, NODES, OWNER
from coopshm._segment import Call, Segment, lib
from tests.conftest import clean
from tests.procs import Child

#: By which test it is held that calls are answered and counted so: of this module, or a file.
CAUSES = {
    "flights": "here",
    "slots": "here",
    "waiters": "here",
    "full": "test_full.py",
    "items": "test_full.py",
    "too_large": "test_full.py",
    "no_space": "environment/test_space.py",
    "lock": "test_stopped.py",
    "rows": "environment/test_privileges.py",
    "forked": "test_fork.py",
    "encode": "test_failures.py",
    "decode": "test_hot.py",
    "segment": "environment/test_objects.py",
    "timeout": "test_timeout.py",
}


def test_each_cause_is_held_by_a_test(cache) -> None:
    assert set(cache().stats().bypasses) == set(CAUSES)
    for cause, where in CAUSES.items():
        path = Path(__file__) if where == "here" else Path(__file__).parent / where
        assert re.search(rf"bypasses\[\"{cause}\"\]|expect\(.*\"{cause}\"", path.read_text()), (cause, where)


def _asks(conn: Any, settings: Any) -> None:
    """Ask for the keys that are sent; say what came of each."""
    coopshm.configure(settings)
    c = coopshm.open("c")
    for key in iter(conn.recv, None):
        conn.send((c.cached(key, lambda: "computed"), c.get(key)))


def _claim(segment: Segment, key: str) -> tuple[int, Call]:
    call = segment.call()
    return segment.claim(call, coopshm.keys.encode_key(key), None), call


def expect(c: coopshm.Cache, other: Child, key: str, cause: str, held: list[Call]) -> None:
    """It is answered and counted, and once `held` is given back it is stored like any other."""
    before = c.stats().bypasses[cause]
    other.send(key)
    assert other.receive() == ("computed", None)
    assert c.stats().bypasses[cause] == before + 1
    assert c.stats().processes == 2
    for call in held:
        c._attachment.segment.release(call)
    other.send(key)
    assert other.receive() == ("computed", "computed")
    other.send(None)
    other.result()
    assert clean(c)


def test_more_computations_than_there_are_flights(settings, cache) -> None:
    c = cache()
    other = Child(_asks, settings())
    held = [_claim(c._attachment.segment, f"held {n}") for n in range(FLIGHTS)]
    assert {code for code, _ in held} == {OWNER}
    expect(c, other, "one more", "flights", [call for _, call in held])


def test_more_waiters_than_there_are_nodes(settings, cache) -> None:
    c = cache()
    other = Child(_asks, settings())
    code, owner = _claim(c._attachment.segment, "k")
    assert code == OWNER
    waiters = [_claim(c._attachment.segment, "k") for _ in range(NODES)]
    assert {code for code, _ in waiters} == {JOINED}
    expect(c, other, "k", "waiters", [*(call for _, call in waiters), owner])


def test_no_place_in_the_index(cache, monkeypatch) -> None:
    """Which takes an index full of litter: tests/csrc/test_index.c makes one, a_littered_index_has_no_slot."""
    c = cache()
    with monkeypatch.context() as patch:
        patch.setattr(Segment, "claim", lambda *_: lib.CSM_NO_SLOT)
        assert [c.cached("k", lambda: "computed") for _ in range(3)] == ["computed"] * 3
    assert c.stats().bypasses["slots"] == 3
    assert c.get("k") is None
    assert c.cached("k", lambda: "stored") == c.get("k") == "stored"
    assert clean(c)


@pytest.mark.parametrize("cause", ["flights", "waiters"])
def test_no_room_is_no_error_to_who_has_a_timeout(settings, cache, cause) -> None:
    c = cache()
    other = Child(_asks_with_a_timeout, settings())
    segment = c._attachment.segment
    if cause == "flights":
        held = [_claim(segment, f"held {n}")[1] for n in range(FLIGHTS)]
    else:
        held = [_claim(segment, "k")[1] for _ in range(1 + NODES)][::-1]
    other.send("k")
    assert other.receive() == "computed"
    assert c.stats().bypasses[cause] == 1
    for call in held:
        segment.release(call)
    assert clean(c)


def _asks_with_a_timeout(conn: Any, settings: Any) -> None:
    coopshm.configure(settings)
    conn.send(coopshm.open("c").cached(conn.recv(), lambda: "computed", timeout=60.0))
