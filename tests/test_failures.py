"""P6 and NoCache: what reaches callers and waiters when nothing is stored."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

import coopshm
from tests.conftest import clean
from tests.procs import WATCHDOG, Child, Tally, run, threads, until


class CustomError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code


class UnpicklableError(Exception):
    def __init__(self) -> None:
        super().__init__("cannot travel")
        self.lock = threading.Lock()


def _raise(what: str) -> Any:
    if what == "custom":
        raise CustomError(7, "went wrong")
    if what == "unpicklable":
        raise UnpicklableError
    if what == "nocache":
        return coopshm.NoCache({"for": "now"})
    raise AssertionError(what)


def _owner(conn: Any, settings: Any, tally: Tally, what: str) -> Any:
    coopshm.configure(settings)

    def fn() -> Any:
        tally.add()
        conn.send("computing")
        assert conn.poll(WATCHDOG)
        conn.recv()
        return _raise(what)

    return _outcome(fn)


def _outcome(fn: Any) -> Any:
    try:
        return "value", coopshm.cached("c", "k", fn)
    except Exception as exc:
        return type(exc).__name__, str(exc), getattr(exc, "code", None), str(exc.__cause__)


def _waiter(_: Any, settings: Any, tally: Tally, n: int) -> list[Any]:
    coopshm.configure(settings)

    def fn() -> Any:
        tally.add()
        return "computed by a waiter"

    return threads(n, lambda _: _outcome(fn))


def _outcomes(c: coopshm.Cache, settings: Any, tally: Tally, what: str) -> tuple[Any, list[Any]]:
    """One owner, 8 x 4 waiters, then the owner's fn ends with `what`."""
    owner = Child(_owner, settings, tally, what)
    assert owner.receive() == "computing"
    waiters = [Child(_waiter, settings, tally, 4) for _ in range(8)]
    until(lambda: c.stats().waiters >= 32)
    owner.send("go on")
    return owner.result(), [answer for child in waiters for answer in child.result()]


def test_an_exception_reaches_the_caller_and_every_waiter_with_its_type_and_origin(settings, cache, tally) -> None:
    c = cache()
    mine, theirs = _outcomes(c, settings(), tally, "custom")
    assert mine[:3] == ("CustomError", "(7, 'went wrong')", 7)
    assert {answer[:3] for answer in theirs} == {mine[:3]}
    assert all("_raise" in answer[3] for answer in theirs), "the traceback of the process where it happened"
    assert len(tally) == 1
    assert c.get("k") is None
    assert c.cached("k", lambda: "now") == "now", "nothing was stored"
    assert c.stats().failures == 1
    assert clean(c)


def test_an_exception_that_cannot_travel_arrives_as_its_text(settings, cache, tally) -> None:
    c = cache()
    mine, theirs = _outcomes(c, settings(), tally, "unpicklable")
    assert mine[:2] == ("UnpicklableError", "cannot travel")
    assert {answer[0] for answer in theirs} == {"ComputeError"}
    assert all("UnpicklableError: cannot travel" in answer[1] for answer in theirs)
    assert len(tally) == 1
    assert clean(c)


def test_nocache_reaches_all_current_waiters_and_leaves_the_key_cold(settings, cache, tally) -> None:
    c = cache()
    mine, theirs = _outcomes(c, settings(), tally, "nocache")
    assert mine == ("value", {"for": "now"})
    assert theirs == [("value", {"for": "now"})] * 32
    assert len(tally) == 1
    assert c.get("k") is None
    assert c.cached("k", lambda: "now") == "now"
    assert clean(c)


def _keep_failing(index: int, settings: Any) -> int:
    coopshm.configure(settings)
    seen = 0
    for n in range(300):

        def fn(n: int = n) -> Any:
            raise CustomError(n, "each time")

        with pytest.raises(CustomError) as info:
            coopshm.cached("c", n % 7, fn)
        seen += info.value.code % 7 == n % 7
    return seen


def test_failures_of_many_keys_in_many_processes_never_cross_and_leave_nothing(settings, cache) -> None:
    c = cache()
    assert run(8, _keep_failing, settings()) == [300] * 8
    assert c.stats().entries == 0
    assert clean(c)


def test_none_is_a_value_like_any_other(cache, tally) -> None:
    c = cache()

    def fn() -> None:
        tally.add()

    assert c.cached("k", fn) is None
    assert c.cached("k", fn) is None
    assert len(tally) == 1
    assert c.get("k", default="absent") is None
    assert c.get("other", default="absent") == "absent"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupted_computation_is_not_shared_but_handed_over(cache, interrupt) -> None:
    c = cache()

    def fn() -> Any:
        raise interrupt

    with pytest.raises(interrupt):
        c.cached("k", fn)
    assert c.cached("k", lambda: "computed") == "computed"
    assert clean(c)


def _interrupted_owner(conn: Any, settings: Any) -> Any:
    coopshm.configure(settings)

    def fn() -> Any:
        conn.send("computing")
        conn.recv()
        raise KeyboardInterrupt

    try:
        coopshm.cached("c", "k", fn)
    except KeyboardInterrupt:
        return "interrupted"


def test_a_waiter_takes_over_from_an_interrupted_owner(settings, cache, tally) -> None:
    c = cache()
    owner = Child(_interrupted_owner, settings())
    assert owner.receive() == "computing"
    waiter = Child(_waiter, settings(), tally, 2)
    until(lambda: c.stats().waiters >= 2)
    owner.send("go on")
    assert owner.result() == "interrupted"
    assert waiter.result() == [("value", "computed by a waiter")] * 2
    assert len(tally) == 1
    assert clean(c)


def test_a_waiter_takes_over_from_a_killed_owner(settings, cache, tally) -> None:
    c = cache()
    owner = Child(_interrupted_owner, settings())
    assert owner.receive() == "computing"
    waiter = Child(_waiter, settings(), tally, 4)
    until(lambda: c.stats().waiters >= 4)
    owner.kill()
    assert waiter.result() == [("value", "computed by a waiter")] * 4
    assert len(tally) == 1
    assert c.stats().takeovers == 1
    assert clean(c)


def test_a_value_that_cannot_be_encoded_is_returned_and_each_waiter_computes_for_itself(cache) -> None:
    c = cache()
    values = [threading.Lock() for _ in range(3)]
    assert c.cached("k", lambda: values[0]) is values[0]
    assert c.cached("k", lambda: values[1]) is values[1]
    assert c.stats().bypasses["encode"] == 2
    computing, go = threading.Event(), threading.Event()

    def slow() -> Any:
        computing.set()
        assert go.wait(WATCHDOG)
        return values[0]

    def body(index: int) -> Any:
        if index == 0:
            return c.cached("k", slow)
        assert computing.wait(WATCHDOG)
        if index == 3:
            until(lambda: c.stats().waiters >= 2)
            go.set()
            return None
        return c.cached("k", lambda: values[index])

    assert threads(4, body)[:3] == values
    assert clean(c)


def test_an_fn_of_minutes_is_waited_for_and_one_that_returns_at_once_is_not(cache) -> None:
    # Minutes stand for "longer than every slice and patience inside": the longest is half a second.
    c = cache()
    computing = threading.Event()

    def slow() -> str:
        computing.set()
        time.sleep(1.5)
        return "slow"

    def body(index: int) -> Any:
        if index:
            assert computing.wait(WATCHDOG)
        return c.cached("k", slow)

    assert threads(4, body) == ["slow"] * 4
    assert c.stats().computations == 1
    assert c.cached("quick", lambda: os.getpid()) == os.getpid()
