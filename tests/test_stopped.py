"""P5, P8: a process is stopped (SIGSTOP) where others need it. They are answered without the cache, which is counted;
when it goes on, or is killed, all is as before. Nothing is timed here: tests/soak/takeover.py does that."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import coopshm
from coopshm import _codes, _segment, attachment
from tests.conftest import clean
from tests.procs import Child, threads, until
from tests.soak.holder import Holder, build

# ---- with the write lock


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(tmp_path_factory.mktemp("holder"))


@pytest.fixture
def hold(program: str) -> Iterator[Any]:
    """hold(cache, role="app"): a process that is stopped while it has the cache's write lock."""
    holders: list[Holder] = []

    def begin(cache: coopshm.Cache, role: str = "app") -> Holder:
        holders.append(Holder(program, cache._attachment.segment.name, role))
        return holders[-1]

    yield begin
    for holder in holders:
        if holder.process.poll() is None:
            holder.end("killed")
            holder.wait()


def _first_call(_: Any, settings: Any) -> tuple[Any, Any]:
    coopshm.configure(settings)
    return coopshm.cached("c", "new", lambda: "computed"), coopshm.cached("c", "stored", lambda: "computed")


@pytest.mark.parametrize("end", ["continued", "killed"])
def test_beside_a_stopped_lock_holder_calls_are_answered_uncached_and_counted_until_it_ends(
    settings, cache, hold, end
) -> None:
    c = cache(hot_objects=False)
    c.cached("stored", lambda: "hit")
    holder = hold(c)
    before = c.stats()
    assert threads(4, lambda n: c.cached(("key", n), lambda: n)) == [0, 1, 2, 3]
    with pytest.raises(LookupError, match="of fn"):
        c.cached("failing", _fail)
    assert c.cached("stored", lambda: pytest.fail("a hit takes no lock")) == "hit"
    assert c.view("raw", lambda: b"bytes") == b"bytes"
    assert Child(_first_call, settings(hot_objects=False)).result() == ("computed", "hit")
    with pytest.raises(coopshm.BusyError, match="held by a process that does not run"):
        c.reset()
    with pytest.raises(coopshm.BusyError, match="held by a process that does not run"):
        c.verify()
    after = c.stats()
    assert after.bypasses["lock"] - before.bypasses["lock"] == 4 + 1 + 1 + 1
    assert (after.entries, after.generation, after.steals) == (1, before.generation, before.steals)

    holder.end(end)
    holder.wait()
    assert c.cached("key", lambda: "stored") == "stored"
    assert c.get("key") == "stored"
    assert c.stats().steals - before.steals == (end == "killed")
    c.reset()
    assert c.get("stored") is None
    assert c.stats().bypasses["lock"] == after.bypasses["lock"]
    assert clean(c)


def _fail() -> None:
    raise LookupError("of fn")


def test_a_call_that_begins_again_does_not_get_new_patience(cache, monkeypatch) -> None:
    c = cache()
    seen: list[int] = []
    original = _segment.Segment.claim

    def claim(self: Any, call: Any, *args: Any) -> int:
        seen.append(call.stalled_ns)
        if len(seen) > 2:
            return original(self, call, *args)
        call.stalled_ns += 123
        return _codes.AGAIN

    monkeypatch.setattr(_segment.Segment, "claim", claim)
    assert c.cached("k", lambda: "v") == "v"
    assert seen == [0, 123, 246]
    assert c.cached("next", lambda: "v") == "v"
    assert seen == [0, 123, 246, 0]


def _publish_late(conn: Any, settings: Any) -> Any:
    coopshm.configure(settings)
    c = coopshm.open("c")

    def fn() -> str:
        conn.send("computing")
        return str(conn.recv())

    value = c.cached("k", fn)
    conn.send(value)
    conn.recv()
    return c.cached("k", lambda: "again")


def test_an_owner_that_cannot_publish_returns_its_value_and_a_waiter_computes(settings, cache, hold) -> None:
    c = cache()
    owner = Child(_publish_late, settings())
    assert owner.receive() == "computing"
    waiter = threading.Thread(target=lambda: answers.append(c.cached("k", lambda: "the waiter's")))
    answers: list[str] = []
    waiter.start()
    until(lambda: c.stats().waiters >= 1)
    holder = hold(c)
    owner.send("the owner's")
    assert owner.receive() == "the owner's"
    waiter.join()
    assert answers == ["the waiter's"]
    assert c.stats().entries == 0
    holder.end("continued")
    holder.wait()
    owner.send("go")
    assert owner.result() == "again"
    assert c.get("k") == "again"
    assert clean(c)


def _open(_: Any, settings: Any) -> str:
    coopshm.configure(settings)
    try:
        return str(coopshm.cached("c", "stored", lambda: "computed"))
    except coopshm.BusyError as exc:
        return f"busy: {exc}"


def test_who_may_be_the_first_of_a_deployment_is_not_shown_what_the_former_one_left(settings, cache, hold) -> None:
    c = cache(lifetime="app")
    c.cached("stored", lambda: "of the former deployment")
    holder = hold(c, "observer")
    c._attachment.segment.leave()  # the last app is gone
    assert Child(_open, settings(lifetime="app")).result().startswith("busy: cache 'c'")
    assert Child(_open, settings(lifetime="host")).result() == "of the former deployment"
    holder.end("continued")
    holder.wait()
    assert Child(_open, settings(lifetime="app")).result() == "computed"


def test_who_comes_with_another_version_is_not_shown_what_belongs_to_the_old_one(settings, cache, hold) -> None:
    c = cache(version=1)
    c.cached("stored", lambda: "of version 1")
    holder = hold(c)
    assert Child(_open, settings(version=2)).result().startswith("busy: cache 'c'")
    assert Child(_open, settings(version=1)).result() == "of version 1"
    holder.end("continued")
    holder.wait()
    assert Child(_open, settings(version=2)).result() == "computed"


# ---- in the middle of a reset


def _begin_reset(conn: Any, settings: Any) -> None:
    coopshm.configure(settings)
    segment = coopshm.open("c")._attachment.segment
    assert segment.reset_lock(1) == _codes.OK
    conn.send("resetting")
    conn.recv()
    segment.reset_commit(b"2")
    segment.reset_unlock()
    conn.send("done")
    conn.recv()


@pytest.mark.parametrize("end", ["continued", "killed"])
def test_behind_a_stopped_resetter_a_reset_says_so(settings, cache, end) -> None:
    c = cache()
    c.cached("k", lambda: "v")
    resetter = Child(_begin_reset, settings())
    assert resetter.receive() == "resetting"
    resetter.stop()
    with pytest.raises(coopshm.BusyError, match="in the middle of a reset and does not run"):
        c.reset()
    assert c.cached("k", lambda: "again") == "v"
    if end == "killed":
        resetter.kill()
        assert c.reset() == 2
    else:
        resetter.resume()
        resetter.send("go")
        assert resetter.receive() == "done"
        assert c.reset() == 3
    assert c.cached("k", lambda: "again") == "again"
    assert clean(c)


def test_with_a_callback_it_is_waited_for_since_that_may_be_slow(settings, cache, monkeypatch) -> None:
    c = cache(on_reset=lambda _: None)
    resetter = Child(_begin_reset, settings())
    assert resetter.receive() == "resetting"
    resetter.stop()
    monkeypatch.setattr(attachment, "_SLICE", 0.001)
    segment, slices = c._attachment.segment, []
    reset_lock = type(segment).reset_lock

    def counted(self: Any, seconds: float) -> int:
        slices.append(seconds)
        if len(slices) == 10 * attachment._PATIENCE:
            resetter.resume()
            resetter.send("go")
        return reset_lock(self, seconds)

    monkeypatch.setattr(type(segment), "reset_lock", counted)
    assert c.reset() == 3
    assert len(slices) >= 10 * attachment._PATIENCE
