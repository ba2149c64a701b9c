"""P2: what a call returns after a reset was computed after it. Hooks, callbacks, versions."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

import coopshm
from tests.conftest import clean
from tests.procs import CONTEXT, WATCHDOG, Child, Tally, run, threads, until

SOURCE: dict[str, Any] = {"version": 1}


def _reload(version: Any) -> None:
    """The host's on_reset callback: brings the source up to date."""
    if version == "broken":
        raise RuntimeError("the source cannot be loaded")
    SOURCE["version"] = version


# ---- reset during a computation


def _computing(conn: Any, settings: Any, tally: Tally) -> Any:
    coopshm.configure(settings)

    def fn() -> int:
        tally.add()
        conn.send("computing")
        assert conn.poll(WATCHDOG)
        return conn.recv()

    return coopshm.cached("c", "k", fn)


def _wait(_: Any, settings: Any) -> list[Any]:
    coopshm.configure(settings)
    return threads(4, lambda _: coopshm.cached("c", "k", lambda: "a waiter's"))


def test_a_reset_during_a_computation_discards_it_and_caller_and_waiters_get_a_new_value(
    settings, cache, tally
) -> None:
    c = cache()
    owner = Child(_computing, settings(), tally)
    assert owner.receive() == "computing"
    waiter = Child(_wait, settings())
    until(lambda: c.stats().waiters >= 4)
    c.reset()
    # The waiters do not stay behind the old computation: one of them computes anew.
    assert waiter.result() == ["a waiter's"] * 4
    owner.send("computed before the reset")
    assert owner.result() == "a waiter's"
    assert c.stats().stale == 1
    assert clean(c)


def test_the_owner_computes_again_when_nobody_else_has(settings, cache, tally) -> None:
    c = cache()
    owner = Child(_computing, settings(), tally)
    assert owner.receive() == "computing"
    c.reset()
    owner.send("old")
    assert owner.receive() == "computing"
    c.reset()
    owner.send("old again")
    assert owner.receive() == "computing"
    owner.send("new")
    assert owner.result() == "new"
    assert c.get("k") == "new"
    assert len(tally) == 3


@pytest.mark.parametrize("end", ["exception", "nocache", "too large"])
def test_what_is_not_stored_is_discarded_by_a_reset_as_well(cache, end) -> None:
    c = cache(memory_limit="64 KiB")
    calls = []

    def fn() -> Any:
        calls.append(1)
        if len(calls) > 1:
            return "new"
        c.reset()
        if end == "exception":
            raise ValueError("of the old generation")
        return coopshm.NoCache("old") if end == "nocache" else "old" * 100_000

    assert c.cached("k", fn) == "new"
    assert len(calls) == 2


def test_aba_a_write_of_the_first_a_is_rejected_in_the_second(settings, cache, tally) -> None:
    c = cache(version="A")
    owner = Child(_computing, settings(version="A"), tally)
    assert owner.receive() == "computing"
    c.reset("B")
    c.reset("A")
    owner.send("of the first A")
    assert owner.receive() == "computing"
    assert c.get("k") is None
    owner.send("of the second A")
    assert owner.result() == "of the second A"


# ---- histories


class _Stamped:
    """Looks at the generation, and notes the clock before it does."""

    def __init__(self, words: Any) -> None:
        self.words, self.last = words, 0

    def __getitem__(self, index: int) -> int:
        self.last = time.monotonic_ns()
        return int(self.words[index])


def _reader(index: int, settings: Any, calls: int, resets: Any, at_least: int) -> Any:
    """Call as fast as possible; of each reply note the generation it was computed in and the moment of return.

    The moment of return is the clock *before* the call's last look at the generation: what the promise is about, free
    of whatever the scheduler does between that look and the next bytecode.
    """
    coopshm.configure(settings)
    c = coopshm.open("c")
    segment = c._attachment.segment
    look = segment.generation
    stamp = segment.words = _Stamped(segment.words)
    segment.generation = lambda: stamp[0]
    ends, generations, wrong = [], [], 0
    n = 0
    while n < calls or resets.value < at_least:
        key = (n * 7 + index) % 40

        def fn(key: int = key, n: int = n) -> Any:
            value = (key, look())
            if n % 11 == 0:
                time.sleep(0.0002)
            if n % 17 == 0:
                return coopshm.NoCache(value)
            if n % 29 == 0:
                raise LookupError(*value)
            return value

        begin = time.monotonic_ns()  # a hit in C looks at the generation without the stamp
        try:
            got, generation = c.cached(key, fn)
        except LookupError as exc:
            got, generation = exc.args
        ends.append(max(begin, stamp.last))
        generations.append(generation)
        wrong += got != key
        n += 1
    return np.array(ends), np.array(generations), wrong


def _resetter(conn: Any, settings: Any, resets: Any) -> Any:
    coopshm.configure(settings)
    c = coopshm.open("c")
    generation = c._attachment.segment.generation
    ends, generations = [], []
    conn.send("ready")
    while not conn.poll(0.003):
        c.reset()
        ends.append(time.monotonic_ns())
        generations.append(generation())
        resets.value += 1
    return np.array(ends), np.array(generations)


def test_a_million_calls_against_a_thousand_resets_never_return_what_is_older_than_a_finished_reset(
    settings, cache
) -> None:
    c = cache()
    readers, calls, at_least = 8, 125_000, 1000
    resets = CONTEXT.Value("q", 0)
    resetter = Child(_resetter, settings(), resets)
    assert resetter.receive() == "ready"
    histories = run(readers, _reader, settings(), calls, resets, at_least)
    resetter.send("stop")
    reset_ends, reset_generations = resetter.result()
    assert len(reset_ends) >= at_least
    overlapped = 0
    for ends, generations, wrong in histories:
        assert wrong == 0
        # The latest reset that had returned when the call returned; its generation is the oldest allowed.
        finished = np.searchsorted(reset_ends, ends, side="left")
        oldest = np.concatenate([[0], reset_generations])[finished]
        late = generations < oldest
        assert not late.any(), f"{late.sum()} replies are older than the reset, the first {np.argmax(late)}"
        overlapped += len(np.unique(finished))
    assert overlapped > at_least, "readers and resets really ran side by side"
    assert clean(c)


# ---- versions


def test_versions_count_up_or_are_any_term(cache) -> None:
    c = cache()
    assert c.version() == 1
    assert c.reset() == 2
    assert c.reset("2026-11") == "2026-11"
    assert c.version() == "2026-11"
    assert c.reset({"release": [1, 2]}) == {"release": [1, 2]}
    assert c.reset() == 1
    assert c.reset() == 2
    with pytest.raises(coopshm.ConfigError, match="version"):
        c.reset(object())
    with pytest.raises(coopshm.ConfigError, match="1024"):
        c.reset("x" * 2000)
    assert c.version() == 2


def test_a_reset_to_the_current_version_does_nothing(cache) -> None:
    c = cache()
    c.cached("k", lambda: "v")
    generation = c.stats().generation
    c.reset(c.version())
    assert c.get("k") == "v"
    assert (c.stats().generation, c.stats().resets) == (generation, 0)


def _reset_all(index: int, settings: Any) -> Any:
    coopshm.configure(settings)
    return [coopshm.reset("c") for _ in range(50)]


def test_concurrent_resets_each_take_their_own_version(settings, cache) -> None:
    c = cache()
    versions = [version for process in run(8, _reset_all, settings()) for version in process]
    assert sorted(versions) == list(range(2, 402))
    assert c.version() == 401
    assert clean(c)


# ---- the host's callback


def test_the_callback_runs_before_the_flip_with_the_version_to_be(cache) -> None:
    c = cache(on_reset="tests.test_reset:_reload")
    c.cached("k", lambda: "v")
    c.reset("next")
    assert SOURCE["version"] == "next"
    assert c.get("k") is None
    seen: list[Any] = []

    def during(version: Any) -> None:
        seen.append((version, c.version(), c.get("k")))

    c = cache(on_reset=during)
    c.cached("k", lambda: "v")
    c.reset("after")
    assert seen == [("after", "next", "v")]


def test_if_the_callback_raises_nothing_changes(cache) -> None:
    c = cache(on_reset="tests.test_reset:_reload")
    c.cached("k", lambda: "v")
    before = c.stats().generation
    with pytest.raises(RuntimeError, match="cannot be loaded"):
        c.reset("broken")
    assert (c.version(), c.stats().generation, c.get("k")) == (1, before, "v")
    assert c.reset("mended") == "mended"


def test_a_reset_from_the_callback_is_refused(cache) -> None:
    def callback(_: Any) -> None:
        coopshm.reset("c")

    c = cache(on_reset=callback)
    with pytest.raises(coopshm.ResetError, match="own on_reset callback"):
        c.reset()
    assert c.version() == 1


def test_a_callback_that_cannot_be_found_is_named(cache) -> None:
    c = cache(on_reset="tests.test_reset:missing")
    with pytest.raises(coopshm.ConfigError, match="missing"):
        c.reset()


def _die_in_callback(conn: Any, settings: Any) -> None:
    def callback(_: Any) -> None:
        conn.send("in the callback")
        conn.recv()

    settings["caches"]["c"]["on_reset"] = callback
    coopshm.configure(settings)
    coopshm.reset("c")


def test_a_resetter_that_dies_in_its_callback_does_not_stand_in_the_way(settings, cache) -> None:
    c = cache()
    child = Child(_die_in_callback, settings())
    assert child.receive() == "in the callback"
    child.kill()
    assert c.reset() == 2
    assert clean(c)


# ---- the process's hooks


def test_hooks_run_in_each_process_before_it_computes_anything_new(settings, cache) -> None:
    c = cache()
    child = Child(_hooked, settings())
    assert child.receive() == "ready"
    c.reset("new")
    child.send("go")
    assert child.result() == ["hook new", "fn", "hit"]


def _hooked(conn: Any, settings: Any) -> list[str]:
    coopshm.configure(settings)
    events: list[str] = []
    coopshm.on_reset("c", lambda version: events.append(f"hook {version}"))
    conn.send("ready")
    conn.recv()

    def fn() -> int:
        events.append("fn")
        return 1

    coopshm.cached("c", "k", fn)
    coopshm.cached("c", "k", fn)
    events.append("hit")
    return events


def test_the_resetting_process_has_run_its_hooks_when_reset_returns(cache) -> None:
    c = cache()
    seen: list[Any] = []
    c.on_reset(seen.append)
    c.reset("a")
    assert seen == ["a"]
    c.reset("a")
    assert seen == ["a"]


def test_what_cannot_be_called_is_no_hook(cache) -> None:
    c = cache()
    with pytest.raises(TypeError, match=r"takes a function of the version, not 'shop\.data:reload'"):
        c.on_reset("shop.data:reload")  # type: ignore[arg-type]
    c.reset("a")
    assert c.cached("k", lambda: "computed") == "computed"


def test_a_hook_may_ask_the_cache_and_other_threads_wait_for_it(cache) -> None:
    c = cache()
    source = {"table": 0}

    def hook(version: Any) -> None:
        source["table"] = c.cached("table", lambda: version * 100)

    c.on_reset(hook)
    c.reset(7)
    answers = threads(8, lambda n: c.cached(("row", n), lambda: source["table"] + n))
    assert answers == [700 + n for n in range(8)]


def test_hits_of_other_threads_wait_for_the_hook_too(settings, cache) -> None:
    c = cache()
    other = coopshm.Cache(settings()["namespace"], coopshm._config.load(settings()).cache("c"))
    events: list[str] = []
    started: list[threading.Thread] = []

    def hook(_: Any) -> None:
        other.cached("k", lambda: "new")
        started.append(threading.Thread(target=lambda: events.append(c.cached("k", lambda: "computed"))))
        started[0].start()
        started[0].join(0.1)  # it would be there by now, if it did not wait
        events.append("hook")

    c.on_reset(hook)
    c.cached("k", lambda: "old")
    other.reset()
    assert c.get("k") == "new"
    started[0].join(WATCHDOG)
    assert events == ["hook", "new"]


def test_a_hook_that_raises_is_run_again_and_nothing_is_computed_before_it_succeeds(settings, cache) -> None:
    c = cache()
    other = coopshm.Cache(settings()["namespace"], coopshm._config.load(settings()).cache("c"))
    fails = [True]

    def hook(_: Any) -> None:
        if fails.pop() if fails else False:
            raise OSError("not yet")

    c.on_reset(hook)
    other.reset()
    with pytest.raises(OSError, match="not yet"):
        c.cached("k", lambda: pytest.fail("computed before the hook"))
    assert c.cached("k", lambda: "v") == "v"


def test_threads_reset_and_read_in_one_process(cache) -> None:
    c = cache()
    stop = threading.Event()
    c.on_reset(lambda version: c.cached(("table", version), lambda: version))

    def body(index: int) -> int:
        if index == 0:
            for _ in range(300):
                c.reset()
            stop.set()
            return 0
        n = 0
        while not stop.is_set():
            n += c.cached(("k", n % 5), lambda: 1)
        return n

    assert all(isinstance(result, int) for result in threads(6, body))
    assert clean(c)


def test_without_a_sidecar_there_is_nobody_to_wait_for(cache) -> None:
    c = cache(version=1)
    report = c.reset(wait=60)
    assert (report.version, report.nodes, report.complete) == (2, (), True)
    assert coopshm.reset("c", 7, wait=0) == coopshm.ResetReport(7, ())
    with pytest.raises(coopshm.ConfigError, match="wait"):
        c.reset(wait=-1)
    assert c.version() == 7
