"""`timeout` and `on_timeout`: how long a call waits for another's computation, and what then.

What it is for comes last: an owner that is stopped (P5). Time passes in some of these tests, but none measures it.
Greenlets are in test_gevent.py.
"""

from __future__ import annotations

import asyncio
import math
import pickle
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import coopshm
from coopshm import _codes, limits, once
from tests import procs
from tests.conftest import clean
from tests.loops import go, until
from tests.procs import WATCHDOG, Child

#: Long enough for a call to begin to wait, short enough to be waited for.
SHORT = 0.05


def _fail() -> Any:
    pytest.fail("it is not to be computed here")


def _own(conn: Any, settings: Any, *keys: Any) -> Any:
    """Own keys, nested in one another, until told; then return what was sent, for each."""
    coopshm.configure(settings)

    def fn(rest: tuple[Any, ...]) -> Any:
        if rest:
            return coopshm.cached("c", rest[0], lambda: fn(rest[1:]))
        conn.send("computing")
        conn.recv()
        return "the owner's"

    return fn(keys)


@pytest.fixture
def owner(settings) -> Callable[..., Child]:
    """owner("k", ...): another process that is computing these keys until it is sent something."""

    def start(*keys: Any, **options: Any) -> Child:
        child = Child(_own, settings(**options), *keys)
        assert child.receive() == "computing"
        return child

    return start


async def _never() -> Any:
    pytest.fail("it is not to be computed here")


def _callers(c: coopshm.Cache) -> dict[str, Callable[..., Any]]:
    """Ways to ask for "k", as `call(fn, timeout=…, on_timeout=…)`."""

    def memoized(fn: Any, **options: Any) -> Any:
        @coopshm.memoize("c", key=lambda: "k", **options)
        def call() -> Any:
            return fn()

        return call()

    def asynchronous(fn: Any) -> Any:
        async def wrapped() -> Any:
            return fn()

        return wrapped

    return {
        "coopshm.cached": lambda fn, **options: coopshm.cached("c", "k", fn, **options),
        "Cache.cached": lambda fn, **options: c.cached("k", fn, **options),
        "Cache.view": lambda fn, **options: c.view("k", lambda: fn().encode(), **options),
        "coopshm.acached": lambda fn, **options: asyncio.run(coopshm.acached("c", "k", asynchronous(fn), **options)),
        "Cache.acached": lambda fn, **options: asyncio.run(c.acached("k", asynchronous(fn), **options)),
        "memoize": memoized,
        "memoize, coroutine": lambda fn, **options: asyncio.run(
            coopshm.memoize("c", key=lambda: "k", **options)(asynchronous(fn))()
        ),
    }


WAYS = list(_callers(None))  # type: ignore[arg-type]


# ---- what may be said


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stored", [True, False])
def test_a_wrong_limit_is_one_clear_error_also_of_a_hit(cache, way, stored) -> None:
    c = cache()
    call = _callers(c)[way]
    if stored:
        assert call(lambda: "v") in ("v", b"v")
    for wrong in (-1, -0.001, math.nan, -math.inf, -(10**400), "1", b"1", True, [], Fraction(1, 2), object()):
        with pytest.raises(coopshm.ConfigError, match=r"^timeout: .* is not allowed: write a number of seconds"):
            call(_fail, timeout=wrong)
    for wrong in ("later", "RAISE", b"raise", 1, True, []):
        with pytest.raises(coopshm.ConfigError, match=r'^on_timeout: .* is not allowed: "raise" or "compute"'):
            call(_fail, timeout=1, on_timeout=wrong)
    assert c.stats().computations == stored
    assert clean(c)


@pytest.mark.parametrize("way", WAYS)
def test_what_may_be_said(cache, way) -> None:
    call = _callers(cache())[way]
    for good in (None, 0, 0.0, -0.0, 1, 1.5, math.inf, 10**400, np.float64(2.5)):
        for then in (None, "raise", "compute"):
            assert call(lambda: "v", timeout=good, on_timeout=then) in ("v", b"v")


def test_other_keywords_are_type_errors(cache) -> None:
    c = cache()
    for wrong in (
        lambda: c.cached("k", _fail, timeouts=1),
        lambda: coopshm.cached("c", "k", _fail, timeout=1, x=2),
        lambda: coopshm.cached("c", "k", _fail, **{"t\ud800": 1}),
    ):
        with pytest.raises(TypeError, match=r"no keyword argument '.*'; it has timeout and on_timeout"):
            wrong()
    for wrong in (lambda: c.cached("k", fn=_fail), lambda: c.cached("k", _fail, 1.0), lambda: c.cached(timeout=1)):
        with pytest.raises(TypeError, match="takes a key and a function"):
            wrong()


def test_the_error_is_a_timeout_error_and_travels() -> None:
    error = coopshm.WaitTimeout("key 'k' …")
    assert isinstance(error, TimeoutError)
    assert isinstance(error, coopshm.CoopshmError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "key 'k' …"


# ---- what it does


@pytest.mark.parametrize("timeout", [0, SHORT])
@pytest.mark.parametrize("way", WAYS)
def test_it_raises_or_computes_and_the_owners_value_is_stored(cache, owner, way, timeout) -> None:
    c = cache()
    other = owner(_key(way))
    call = _callers(c)[way]
    with pytest.raises(coopshm.WaitTimeout, match=r"cache 'c'.*'k'.*coopshm-admin flights c .*on_timeout='compute'"):
        call(_fail, timeout=timeout)
    assert call(lambda: "mine", timeout=timeout, on_timeout="compute") in ("mine", b"mine")
    with pytest.raises(LookupError, match="of fn"):
        call(_lookup_error, timeout=timeout, on_timeout="compute")
    stats = c.stats()
    assert (stats.timeouts, stats.bypasses["timeout"]) == (3, 2)
    assert (stats.computations, stats.entries, stats.waiters, stats.flights) == (1, 0, 0, 1)
    other.send("go")
    assert other.result() == "the owner's"
    assert c.cached(_key(way), _fail) == "the owner's"
    assert c.stats().computations == 1
    assert clean(c)


def _key(way: str) -> Any:
    """The key that `_callers` ask for in this way."""
    return (f"{__name__}._callers.<locals>.{_MEMOIZED[way]}", "k") if way in _MEMOIZED else "k"


_MEMOIZED = {"memoize": "memoized.<locals>.call", "memoize, coroutine": "asynchronous.<locals>.wrapped"}


def _lookup_error() -> Any:
    raise LookupError("of fn")


def test_what_is_stored_is_returned_and_what_nobody_computes_is_computed_however_short_it_is(cache) -> None:
    c = cache()
    assert c.cached("k", lambda: "computed", timeout=0) == "computed"
    assert c.cached("k", _fail, timeout=0) == "computed"
    assert c.view("bytes", lambda: b"computed", timeout=0) == b"computed"
    assert c.stats().timeouts == 0


def test_nocache_and_what_cannot_be_stored_are_returned_as_ever(cache, owner) -> None:
    c = cache()
    other = owner("k")
    lock = threading.Lock()
    assert c.cached("k", lambda: coopshm.NoCache("mine"), timeout=0, on_timeout="compute") == "mine"
    assert c.cached("k", lambda: lock, timeout=0, on_timeout="compute") is lock
    other.send("go")
    other.result()
    assert clean(c)


def test_what_was_computed_without_the_cache_before_a_reset_is_computed_again(cache, owner) -> None:
    c = cache()
    other = owner("k")
    calls: list[int] = []

    def fn() -> int:
        calls.append(c.stats().generation)
        if len(calls) == 1:
            c.reset()
        return calls[-1]

    assert c.cached("k", fn, timeout=0, on_timeout="compute") == calls[1] == calls[0] + 1
    assert len(calls) == 2
    other.kill()
    assert clean(c)


def test_under_asyncio_too(cache, owner) -> None:
    c = cache()
    other = owner("k")
    calls: list[int] = []

    async def fn() -> int:
        calls.append(c.stats().generation)
        if len(calls) == 1:
            await asyncio.to_thread(c.reset)
        return calls[-1]

    assert asyncio.run(c.acached("k", fn, timeout=0, on_timeout="compute")) == calls[-1] == c.stats().generation
    assert len(calls) == 2
    other.kill()
    assert clean(c)


def test_who_begins_again_has_what_time_it_has_left(cache, owner, monkeypatch) -> None:
    c = cache()
    other = owner("k")
    clock = [100.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: clock[0])
    loop = once.steps(c, coopshm.keys.encode_key("k"), "k", limit=limits.Limit(10.0, False))
    step = next(loop)
    assert isinstance(step, once.Wait)
    assert step.seconds == 10.0
    for left in (6.0, 2.0, 0.0):
        clock[0] += 4.0
        step.segment.release(step.call)
        step = loop.send(_codes.AGAIN)  # as after a reset
        assert isinstance(step, once.Wait)
        assert step.seconds == left
    with pytest.raises(StopIteration) as end:
        loop.send(_codes.TIMEOUT)
    assert end.value.value is once.TIMED_OUT
    assert c.stats().waiters == 0
    other.send("go")
    other.result()
    assert clean(c)


# ---- computations within computations


@pytest.mark.parametrize("then", ["raise", "compute"])
def test_of_a_call_within_a_computation(cache, owner, then) -> None:
    c = cache()
    other = owner("inner")

    def outer() -> str:
        return "outer with " + c.cached("inner", lambda: "inner", timeout=SHORT, on_timeout=then)

    if then == "raise":
        with pytest.raises(coopshm.WaitTimeout, match="'inner'"):
            c.cached("outer", outer)
        assert c.stats().failures == 1, "it is fn's exception, as any other"
    else:
        assert c.cached("outer", outer) == "outer with inner"
        assert c.get("outer") == "outer with inner"
    other.send("go")
    other.result()
    assert clean(c)


def test_a_cycle_is_told_before_any_time_is_up(cache) -> None:
    c = cache()

    def fn() -> Any:
        return c.cached("k", fn, timeout=0, on_timeout="compute")

    with pytest.raises(coopshm.CycleError):
        c.cached("k", fn)
    assert c.stats().timeouts == 0


def test_a_computation_without_the_cache_that_asks_for_its_own_key_is_a_cycle(cache, owner) -> None:
    c = cache()
    other = owner("k")

    def fn() -> Any:
        return c.cached("k", fn, timeout=0, on_timeout="compute")

    with pytest.raises(coopshm.CycleError):
        fn()
    other.send("go")
    other.result()
    assert clean(c)


# ---- settings


def test_a_cache_has_settings_for_it_which_a_call_overrides(cache, owner) -> None:
    c = cache(timeout=0, on_timeout="compute")
    other = owner("k", timeout=0)
    assert c.cached("k", lambda: "mine") == "mine"
    assert asyncio.run(c.acached("k", _async("mine"))) == "mine"
    assert c.view("k", lambda: b"mine") == b"mine"
    with pytest.raises(coopshm.WaitTimeout):
        c.cached("k", _fail, on_timeout="raise")
    waiter = threading.Thread(target=lambda: answers.append(c.cached("k", _fail, timeout=math.inf)))
    answers: list[str] = []
    waiter.start()
    procs.until(lambda: c.stats().waiters >= 1)
    other.send("go")
    waiter.join(WATCHDOG)
    assert answers == ["the owner's"]
    other.result()  # it has ended: waiters have the value a moment before its writer lets go of it
    assert clean(c)


def _async(value: Any) -> Any:
    async def fn() -> Any:
        return value

    return fn


# ---- tasks that share a loop


@pytest.mark.parametrize("first", ["raise", "compute", "endless"])
def test_each_task_has_its_own_time(cache, owner, first) -> None:
    """Whichever of them takes the steps for all: who leaves disturbs nobody."""
    c = cache()
    other = owner("k")

    async def main() -> None:
        options: dict[str, Any] = {
            "raise": {"timeout": SHORT}, "compute": {"timeout": SHORT, "on_timeout": "compute"}, "endless": {},
        }  # fmt: skip
        order = [first] + [kind for kind in options if kind != first]
        tasks = {
            kind: [asyncio.create_task(c.acached("k", _async(f"mine {n}"), **options[kind])) for n in range(50)]
            for kind in order
        }
        found = await asyncio.gather(*tasks["raise"], return_exceptions=True)
        assert {type(exc) for exc in found} == {coopshm.WaitTimeout}
        assert await asyncio.gather(*tasks["compute"]) == [f"mine {n}" for n in range(50)]
        await until(lambda: c.stats().waiters == 1)
        assert not any(task.done() for task in tasks["endless"])
        other.send("go")
        assert await asyncio.gather(*tasks["endless"]) == ["the owner's"] * 50

    go(main)
    other.result()
    stats = c.stats()
    assert (stats.timeouts, stats.bypasses["timeout"], stats.computations) == (100, 50, 1)
    assert clean(c)


def test_tasks_that_wait_for_a_task_have_their_own_time_too(cache) -> None:
    c = cache()

    async def main() -> None:
        begun, told = asyncio.Event(), asyncio.Event()

        async def slow() -> str:
            begun.set()
            await told.wait()
            return "slow"

        owner = asyncio.create_task(c.acached("k", slow, timeout=0))
        await begun.wait()
        patient = asyncio.create_task(c.acached("k", _never))
        with pytest.raises(coopshm.WaitTimeout):
            await c.acached("k", _never, timeout=0)
        assert await c.acached("k", _async("mine"), timeout=SHORT, on_timeout="compute") == "mine"
        told.set()
        assert (await owner, await patient) == ("slow", "slow")

    go(main)
    assert clean(c)


def test_when_the_owner_dies_tasks_without_a_limit_take_over(cache, owner) -> None:
    c = cache()
    other = owner("k")

    async def main() -> None:
        hasty = [asyncio.create_task(c.acached("k", _never, timeout=SHORT)) for _ in range(10)]
        patient = [asyncio.create_task(c.acached("k", _async("taken over"))) for _ in range(10)]
        assert {type(exc) for exc in await asyncio.gather(*hasty, return_exceptions=True)} == {coopshm.WaitTimeout}
        other.kill()
        assert await asyncio.gather(*patient) == ["taken over"] * 10

    go(main)
    assert c.stats().computations == 2
    assert clean(c)


# ---- a stopped owner


def _ask(_: Any, settings: Any, options: Any) -> Any:
    coopshm.configure(settings)
    try:
        return coopshm.cached("c", "k", lambda: "computed uncached", **options)
    except coopshm.WaitTimeout:
        return "timeout"


@pytest.mark.parametrize("end", ["continued", "killed", "reset"])
def test_with_a_stopped_owner_those_who_have_a_timeout_go_on_and_nobody_is_harmed(settings, cache, owner, end) -> None:
    c = cache()
    other = owner("k")
    other.stop()
    patient = Child(_ask, settings(), {})
    procs.until(lambda: c.stats().waiters >= 1)
    for _ in range(3):
        assert Child(_ask, settings(), {"timeout": SHORT}).result() == "timeout"
        compute = {"timeout": SHORT, "on_timeout": "compute"}
        assert Child(_ask, settings(), compute).result() == "computed uncached"
    with pytest.raises(coopshm.WaitTimeout):
        c.cached("k", _fail, timeout=SHORT)
    assert c.cached("other", lambda: "others are not affected", timeout=0) == "others are not affected"
    assert (c.stats().waiters, c.stats().flights, c.get("k")) == (1, 1, None)

    if end == "continued":
        other.resume()
        other.send("go")
        assert other.result() == patient.result() == "the owner's"
        assert c.cached("k", _fail, timeout=0) == "the owner's"
    elif end == "killed":
        other.kill()
        assert patient.result() == "computed uncached", "it has taken over, so it is stored"
        assert c.cached("k", _fail, timeout=0) == "computed uncached"
    else:
        c.reset()
        assert patient.result() == "computed uncached", "and stored: the flight was of the last generation"
        other.resume()
        other.send("go")
        assert other.result() == "computed uncached", "its own value is too old"
        assert c.cached("k", _fail, timeout=0) == "computed uncached"
    stats = c.stats()
    assert (stats.timeouts, stats.bypasses["timeout"]) == (7, 3)
    assert clean(c)
