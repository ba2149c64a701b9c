"""asyncio: whatever way a computation or a wait ends, it is left to nobody, and the next one who asks gets a value."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
import uvloop

import coopshm
from coopshm import aio
from tests.conftest import clean
from tests.loops import RUN, go, loop, until
from tests.procs import WATCHDOG

__all__ = ["loop"]  # the fixture: every test runs on each kind of event loop


async def _never() -> Any:
    await asyncio.Event().wait()


async def _fail() -> Any:
    pytest.fail("it is computed elsewhere")


def _by(who: str) -> Callable[[], Any]:
    async def fn() -> str:
        return f"computed by {who}"

    return fn


@pytest.fixture
def held(cache) -> Iterator[Callable[[], None]]:
    """A thread computes "k" until this is called."""
    c = cache()
    owns, go_on = threading.Event(), threading.Event()

    def fn() -> str:
        owns.set()
        assert go_on.wait(WATCHDOG)
        return "the thread's"

    owner = threading.Thread(target=c.cached, args=("k", fn))
    owner.start()
    assert owns.wait(WATCHDOG)

    def release() -> None:
        go_on.set()
        owner.join(WATCHDOG)

    yield release
    release()


# ---- cancelled


def test_a_function_that_raises_cancelled_error_itself_ends_its_caller_only(cache) -> None:
    c = cache()
    calls: list[int] = []

    async def main() -> Any:
        async def fn() -> str:
            calls.append(1)
            await asyncio.sleep(0.01)
            if len(calls) == 1:
                raise asyncio.CancelledError
            return "computed by the second"

        return await asyncio.gather(*(c.acached("k", fn) for _ in range(5)), return_exceptions=True)

    first, *others = go(main)
    assert isinstance(first, asyncio.CancelledError)
    assert others == ["computed by the second"] * 4
    assert len(calls) == 2
    assert clean(c)


def test_a_scope_that_cancels_again_and_again_until_it_is_left(cache) -> None:
    """As anyio's do, and with them Starlette's: who computes hands over to those who wait."""
    c = cache()

    async def main() -> None:
        found: list[str] = []
        owns = asyncio.Event()

        async def compute() -> Any:
            owns.set()
            await _never()

        async def own() -> None:
            with scope:
                await c.acached("k", compute)

        async def wait(n: int) -> None:
            found.append(await c.acached("k", _by(f"waiter {n}")))

        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(own)
            await owns.wait()
            for n in range(5):
                tasks.start_soon(wait, n)
            await asyncio.sleep(0)
            scope.cancel()
        assert scope.cancelled_caught
        assert found == ["computed by waiter 0"] * 5

    go(main)
    assert clean(c)


def test_a_task_group_that_fails_takes_those_along_who_wait(cache, held) -> None:
    c = coopshm.open("c")

    async def main() -> None:
        async def end() -> None:
            await until(lambda: c.stats().waiters == 1)
            raise LookupError

        async def crew() -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(c.acached, "k", _fail)
                tasks.start_soon(end)

        with pytest.raises(Exception, match="TaskGroup") as info:  # before Python 3.11 there is no ExceptionGroup
            await crew()
        assert [type(one) for one in info.value.exceptions] == [LookupError]  # type: ignore[attr-defined]
        assert (c.stats().flights, c.stats().waiters) == (1, 0)

    go(main)
    held()
    assert clean(c)


# ---- interrupted


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_event_loop_ends_the_computation(cache, loop, interrupt) -> None:
    c = cache()

    async def fn() -> None:
        raise interrupt

    with pytest.raises(interrupt):
        RUN[loop](c.acached("k", fn))
    assert c.stats().flights == 0
    assert go(lambda: c.acached("k", _by("the next"))) == "computed by the next"
    assert clean(c)


# ---- left behind


def _new_loop(kind: str) -> Any:
    return asyncio.new_event_loop() if kind == "asyncio" else uvloop.new_event_loop()


def _left(kind: str, main: Callable[[], Any]) -> None:
    """Run `main`, and close its event loop with what tasks it has left."""
    made = _new_loop(kind)
    made.run_until_complete(main())
    made.close()


def test_what_a_closed_event_loop_was_computing_is_given_up(cache, loop, monkeypatch) -> None:
    c = cache()
    wrong: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", wrong.append)

    async def main() -> None:
        owns = asyncio.Event()

        async def fn() -> None:
            owns.set()
            await _never()

        tasks = [asyncio.create_task(c.acached("k", fn)) for _ in range(3)]
        await owns.wait()
        del tasks

    _left(loop, main)
    gc.collect()
    assert wrong == []
    assert aio._shared() == {}
    assert c.stats().flights == 0
    assert c.cached("k", lambda: "computed by a thread") == "computed by a thread"
    assert clean(c)


def test_what_a_closed_event_loop_waited_for_is_not_disturbed(cache, held, loop) -> None:
    c = coopshm.open("c")

    async def main() -> None:
        tasks = [asyncio.create_task(c.acached("k", _fail)) for _ in range(3)]
        await until(lambda: c.stats().waiters == 1)
        del tasks

    _left(loop, main)
    assert go(lambda: c.acached("other", _by("the next loop"))) == "computed by the next loop"
    held()
    assert c.cached("k", lambda: "again") == "the thread's"
    go(lambda: until(lambda: gc.collect() >= 0 and not aio._shared()))  # until the thread that waited has let go
    assert clean(c)


def test_one_event_loop_after_the_other(cache) -> None:
    c = cache()
    assert [go(lambda n=n: c.acached(n // 2, _by(f"loop {n}"))) for n in range(4)] == [
        "computed by loop 0", "computed by loop 0", "computed by loop 2", "computed by loop 2",
    ]  # fmt: skip
    assert clean(c)


def test_a_task_that_outlives_the_computation_that_started_it_is_no_part_of_it(cache) -> None:
    """It may ask for the same key, share a computation with others, and is not told of a cycle that there is not."""
    c = cache()

    async def main() -> list[Any]:
        ended = asyncio.Event()

        async def later() -> list[Any]:
            await ended.wait()
            c.reset()
            return await asyncio.gather(*(c.acached("k", _by(f"the task {n}")) for n in range(3)))

        async def fn() -> str:
            fn.task = asyncio.create_task(later())  # type: ignore[attr-defined]
            return "computed"

        assert await c.acached("k", fn) == "computed"
        ended.set()
        return list(await fn.task)  # type: ignore[attr-defined]

    assert go(main) == ["computed by the task 0"] * 3
    assert c.stats().computations == 2
    assert clean(c)


# ---- not as it should be


def test_a_call_in_the_event_loops_own_thread_waits_for_it_for_ever_but_for_a_timeout(cache) -> None:
    """`cached` blocks its thread. What a task of that very thread computes cannot go on meanwhile."""
    c = cache()

    async def main() -> None:
        owns = asyncio.Event()

        async def fn() -> str:
            owns.set()
            await asyncio.sleep(0)
            return "computed by the task"

        task = asyncio.create_task(c.acached("k", fn))
        await owns.wait()
        with pytest.raises(coopshm.WaitTimeout):
            c.cached("k", lambda: "never called", timeout=0.01)
        assert await task == "computed by the task"

    go(main)
    assert clean(c)


def test_without_an_event_loop_of_asyncio_the_error_says_so(cache) -> None:
    c = cache()
    with pytest.raises(RuntimeError, match=r"event loop of asyncio.*under trio, call cached\(\)"):
        c.acached("k", _fail).send(None)
    assert clean(c)


def test_tasks_that_begin_at_once_share_a_computation_too(cache, loop) -> None:
    c = cache()
    # From Python 3.12 on; uvloop has none that it can use.
    eager = getattr(asyncio, "eager_task_factory", None) if loop == "asyncio" else None

    async def main() -> list[Any]:
        asyncio.get_running_loop().set_task_factory(eager)
        return await asyncio.gather(*(c.acached("k", _by(f"task {n}")) for n in range(50)))

    assert go(main) == ["computed by task 0"] * 50
    assert clean(c)
