"""What `fn` may and may not do: the claims of docs/computing.md that no other test module holds."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coopshm
from tests.conftest import clean
from tests.procs import WATCHDOG, Child, until


def _fail() -> Any:
    pytest.fail("it is stored, or computed elsewhere")


# ---- what it returns


def test_who_computed_gets_the_very_object_and_the_others_get_one_of_their_own(cache) -> None:
    c = cache()
    made = [1, [2]]
    assert c.cached("k", lambda: made) is made
    made[1].append("changed")  # type: ignore[attr-defined]
    first, second = c.cached("k", _fail), c.cached("k", _fail)
    assert first == second == [1, [2]]
    first[1].append("changed as well")
    assert c.cached("k", _fail) == second == [1, [2]]
    assert first is not second


def test_who_computed_may_write_to_an_array_and_the_others_may_not(cache) -> None:
    c = cache()
    made = c.cached("k", lambda: np.zeros(10_000))
    made[0] = 1
    stored = c.cached("k", _fail)
    assert stored[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        stored[0] = 1


def test_who_computed_gets_what_the_serializer_would_have_changed(cache) -> None:
    c = cache(serializer="json")
    assert c.cached("k", lambda: (1, {2: 3})) == (1, {2: 3})
    assert c.cached("k", _fail) == [1, {"2": 3}]


def _generator() -> Any:
    return (n for n in range(3))


def _file() -> Any:
    return open(__file__, "rb")


async def _coroutine() -> str:
    return "computed"


@pytest.mark.parametrize("fn", [_generator, _file, _coroutine])
def test_what_cannot_be_stored_is_returned_each_time_anew_and_counted(cache, fn, caplog) -> None:
    c = cache()
    first, second = c.cached("k", fn), c.cached("k", fn)
    assert first is not second
    assert c.stats().bypasses["encode"] == 2
    assert c.get("k", "absent") == "absent"
    for made in (first, second):
        made.close()
    (told,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert ("coroutine functions are for acached()" in told) == (fn is _coroutine)
    assert clean(c)


# ---- whose it is: the caller's thread, task and context, and nobody else's


_request: contextvars.ContextVar[str] = contextvars.ContextVar("request")


def test_it_runs_in_the_thread_and_context_of_the_one_caller_that_computes(cache) -> None:
    c = cache()
    _request.set("the caller's")

    def fn() -> Any:
        seen = (threading.get_ident(), _request.get())
        _request.set("set by fn")
        return seen

    assert c.cached("k", fn) == (threading.get_ident(), "the caller's")
    assert _request.get() == "set by fn"


def test_a_waiters_context_plays_no_part(cache) -> None:
    """Who asks for the key gets what was computed for the first one's request: a key has to name all that counts."""
    c = cache()

    async def main() -> list[str]:
        begun, told = asyncio.Event(), asyncio.Event()

        async def fn() -> str:
            begun.set()
            await told.wait()
            return f"for {_request.get()}"

        async def serve(request: str) -> str:
            _request.set(request)
            return await c.acached("k", fn)

        first = asyncio.create_task(serve("the first"))
        await begun.wait()
        second = asyncio.create_task(serve("the second"))
        await asyncio.sleep(0)
        told.set()
        return await asyncio.gather(first, second)

    assert asyncio.run(main()) == ["for the first"] * 2


# ---- threads and locks


def test_a_thread_that_has_the_computations_context_is_part_of_it(cache) -> None:
    c = cache()
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            c.cached("k", _fail)
        except coopshm.CycleError as exc:
            raised.append(exc)

    def fn() -> str:
        thread = threading.Thread(target=contextvars.copy_context().run, args=(ask,))
        thread.start()
        thread.join(WATCHDOG)
        return "computed"

    assert c.cached("k", fn) == "computed"
    assert len(raised) == 1
    assert clean(c)


def test_it_is_no_longer_when_the_computation_has_ended(cache) -> None:
    c = cache()
    values: list[Any] = []
    ended = threading.Event()

    def later() -> None:
        assert ended.wait(WATCHDOG)
        c.reset()
        values.append(c.cached("k", lambda: "computed later"))

    thread = threading.Thread(target=lambda: None)

    def fn() -> str:
        nonlocal thread
        thread = threading.Thread(target=contextvars.copy_context().run, args=(later,))
        thread.start()
        return "computed"

    assert c.cached("k", fn) == "computed"
    ended.set()
    thread.join(WATCHDOG)
    assert values == ["computed later"]
    assert clean(c)


def test_so_is_a_thread_of_asyncio(cache) -> None:
    c = cache()

    async def fn() -> str:
        return str(await asyncio.to_thread(c.cached, "k", _fail))

    with pytest.raises(coopshm.CycleError):
        asyncio.run(c.acached("k", fn))
    assert clean(c)


def test_any_other_thread_is_not_and_a_timeout_gets_it_out_of_a_deadlock(cache) -> None:
    c = cache()
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            c.cached("k", _fail, timeout=0.05)
        except coopshm.WaitTimeout as exc:
            raised.append(exc)

    def fn() -> str:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(WATCHDOG)
        return "computed"

    assert c.cached("k", fn) == "computed"
    assert len(raised) == 1
    assert clean(c)


def test_a_lock_that_a_waiter_holds_is_a_deadlock_that_a_timeout_ends(cache) -> None:
    c = cache()
    lock, computing, held = threading.Lock(), threading.Event(), threading.Event()

    def fn() -> str:
        computing.set()
        assert held.wait(WATCHDOG)
        with lock:
            return "computed"

    owner = threading.Thread(target=c.cached, args=("k", fn))
    owner.start()
    assert computing.wait(WATCHDOG)
    with lock:
        held.set()
        with pytest.raises(coopshm.WaitTimeout):
            c.cached("k", _fail, timeout=0.05)
    owner.join(WATCHDOG)
    assert c.cached("k", _fail) == "computed"
    assert clean(c)


# ---- signals


def _own(conn: Any, settings: Any) -> None:
    coopshm.configure(settings)

    def fn() -> str:
        conn.send("computing")
        conn.recv()
        return "the owner's"

    coopshm.cached("c", "k", fn)


@pytest.mark.parametrize("raises", [False, True])
def test_signal_handlers_run_while_a_call_waits_and_may_end_it(settings, cache, raises) -> None:
    c = cache()
    owner = Child(_own, settings())
    assert owner.receive() == "computing"
    heard: list[int] = []

    def handle(number: int, _frame: object) -> None:
        heard.append(number)
        if raises:
            raise KeyboardInterrupt
        owner.send("go on")

    def ring() -> None:
        until(lambda: c.stats().waiters >= 1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)  # type: ignore[arg-type]

    before = signal.signal(signal.SIGUSR1, handle)
    ringer = threading.Thread(target=ring)
    ringer.start()
    try:
        if raises:
            with pytest.raises(KeyboardInterrupt):
                c.cached("k", _fail)
            owner.send("go on")
        else:
            assert c.cached("k", _fail) == "the owner's"
    finally:
        signal.signal(signal.SIGUSR1, before)
        ringer.join(WATCHDOG)
    assert heard == [signal.SIGUSR1]
    owner.result()
    assert c.cached("k", _fail) == "the owner's"
    assert clean(c)


# ---- the cache itself


def test_it_may_use_this_and_other_caches_in_every_way(settings, namespace) -> None:
    coopshm.configure({"namespace": namespace, "caches": {"c": {}, "d": {}}})
    c, d = coopshm.open("c"), coopshm.open("d")

    def fn() -> Any:
        d.reset()
        return c.get("other"), d.cached("part", lambda: 1), bytes(d.view("bytes", lambda: b"b") or b""), c.stats().name

    assert c.cached("k", fn) == (None, 1, b"b", "c")
    assert clean(c)
    assert clean(d)


def test_if_it_resets_its_own_cache_it_is_called_again(cache) -> None:
    c = cache()
    versions: list[Any] = []

    def fn() -> int:
        if len(versions) < 3:
            versions.append(c.reset())
        return len(versions)

    assert c.cached("k", fn) == 3
    assert versions == [2, 3, 4]
    assert clean(c)


def test_asyncio_run_within_it_is_part_of_it(cache) -> None:
    c = cache()

    async def part() -> str:
        return "part"

    async def itself() -> Any:
        return await c.acached("k", part)

    assert c.cached("other", lambda: asyncio.run(c.acached("part", part))) == "part"
    with pytest.raises(coopshm.CycleError):
        c.cached("k", lambda: asyncio.run(itself()))
    assert clean(c)


# ---- the page itself


def test_the_tests_that_the_page_names_exist() -> None:
    tests = Path(__file__).parent
    page = (tests.parent / "docs" / "computing.md").read_text()
    named = [name for names in re.findall(r"\[(`[^]]+)\]", page) for name in re.findall(r"`([^`]+)`", names)]
    functions = "\n".join(path.read_text() for path in tests.rglob("*.py"))
    assert len(named) > 20
    for name in named:
        if name.endswith("…"):
            assert f"def test_{name[:-1]}" in functions, name
        elif not (tests / name).exists() and not (tests / f"{name}.py").exists():
            assert f"def {name}(" in functions, name
