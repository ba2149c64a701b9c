"""How long the living wait for the dead and the stopped: `python -m tests.soak.takeover [--rounds 200]`.

A computation's owner is killed while others, in other processes, wait for it: the time from the SIGKILL until one of
them has become the owner and begins to compute. Target: p99 at most 20 ms (P5). On a busy machine the killed process
may have to wait long for the CPU that it takes to die, so there is a second line: from the moment at which its row's
lock was seen to be free, as far as this process could see that in time. Then the write lock: a process is
stopped inside a critical section (holder.c), and the others go on without the cache, in less than a second, counted as
bypasses "lock"; hits do not notice; continued or killed, the holder costs nothing any more.

Times depend on the machine and its load, so this is a measurement and no test. Exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from typing import Any

import coopshm
from coopshm.errors import BusyError
from tests.procs import WATCHDOG, Child, reap_all
from tests.soak.holder import Holder, build, until

TARGET_MS, LOCK_LIMIT_MS = 20.0, 1000.0

now = time.monotonic_ns


# ---- in the other processes


def _own(conn: Any, settings: Any, key: int, fork: bool) -> None:
    coopshm.configure(settings)

    def fn() -> None:
        if fork and os.fork() == 0:  # it lives on, with all it has inherited
            conn.send("computing")
            conn.recv()
            os._exit(0)
        if not fork:
            conn.send("computing")
        time.sleep(WATCHDOG)

    coopshm.cached("c", key, fn)


def _wait(conn: Any, settings: Any) -> None:
    """For each key that is sent, send when somebody began to compute it: this process or another."""
    coopshm.configure(settings)
    while (key := conn.recv()) is not None:
        conn.send(coopshm.cached("c", key, now))


def _ask(conn: Any, settings: Any) -> None:
    """For each list of keys: the milliseconds that each took, and the longest of a thousand hits."""
    coopshm.configure(settings)
    cache = coopshm.open("c")
    cache.get("stored")
    while (asked := conn.recv()) is not None:
        misses, hits = [], []
        for key in asked:
            begin = now()
            assert cache.cached(key, lambda key=key: key) == key
            misses.append((now() - begin) / 1e6)
            for _ in range(1000):
                begin = now()
                assert cache.get("stored") == [1]
                hits.append((now() - begin) / 1e6)
        hits.sort()
        conn.send((misses, hits[len(hits) // 2], hits[-1]))


def _begin(_: Any, settings: Any, key: int) -> tuple[float, str]:
    """The milliseconds that a new process takes for its first call, with the attach, and the error if there is one."""
    coopshm.configure(settings)
    begin, error = now(), ""
    try:
        assert coopshm.cached("c", key, lambda: key) == key
    except Exception as exc:
        error = repr(exc)
    return (now() - begin) / 1e6, error


# ---- takeovers


def waiting(cache: coopshm.Cache) -> int:
    return sum(flight.waiters for flight in cache._attachment.segment.flights())


def lives(cache: coopshm.Cache, pid: int) -> bool:
    return any(flight.pid == pid and flight.alive for flight in cache._attachment.segment.flights())


def takeovers(
    settings: Any, cache: coopshm.Cache, rounds: int, waiters: int, fork: bool = False, sentinel: str = ""
) -> tuple[list[float], list[float]]:
    """Milliseconds from the owner's SIGKILL to the takeover, and from its death.

    Args:
        sentinel: "stop" or "kill" the first waiter as well.
    """
    crew = [Child(_wait, settings) for _ in range(waiters)]
    found, after_death = [], []
    for _ in range(rounds):
        key = next(_keys)
        owner = Child(_own, settings, key, fork)
        assert owner.receive() == "computing"
        for at, waiter in enumerate(crew):  # the first one to wait is the sentinel
            waiter.send(key)
            if at == 0 or at == waiters - 1:
                until(lambda at=at: waiting(cache) == at + 1)
        time.sleep(0.012 * random.random())  # at whatever point of its slice the waiter is
        if sentinel == "stop":
            crew[0].stop()
        begin = now()
        if sentinel == "kill":
            os.kill(crew[0].pid, signal.SIGKILL)
        os.kill(owner.pid, signal.SIGKILL)
        until(lambda pid=owner.pid: not lives(cache, pid))
        dead = now()
        answers = [waiter.receive() for waiter in (crew[1:] if sentinel else crew)]
        assert len(set(answers)) == 1, "computed once"
        found.append((answers[0] - begin) / 1e6)
        after_death.append(max(answers[0] - dead, 0) / 1e6)
        if sentinel == "stop":
            crew[0].resume()
            crew[0].receive()
        elif sentinel == "kill":
            crew[0].process.join()
            crew[0] = Child(_wait, settings)
        if fork:
            owner.send("end")
        else:
            owner.process.join()
    for waiter in crew:
        waiter.send(None)
    reap_all()
    return found, after_death


def lines(name: str, found: tuple[list[float], list[float]]) -> float:
    worst = line(name, found[0])
    line("    from its death", found[1])
    return worst


def line(name: str, found: list[float]) -> float:
    found = sorted(found)
    p99 = found[min(len(found) - 1, int(len(found) * 0.99))]
    print(
        f"  {name:<46}{len(found):>6}{found[0]:>9.2f}{found[len(found) // 2]:>9.2f}{p99:>9.2f}{found[-1]:>9.2f}",
        flush=True,
    )
    return p99


# ---- the lock


def lock_holder(settings: Any, cache: coopshm.Cache, askers: int = 4, calls: int = 3) -> bool:
    segment = cache._attachment.segment
    crew = [Child(_ask, settings) for _ in range(askers)]
    good = True

    def ask(what: str) -> list[float]:
        for asker in crew:
            asker.send([next(_keys) for _ in range(calls)])
        answers = [asker.receive() for asker in crew]
        misses = [ms for asked, _, _ in answers for ms in asked]
        line(f"{what}: misses of {askers} processes", misses)
        print(f"  {'hits meanwhile, p50 and max, ms':<46}{'':>15}{answers[0][1]:>9.4f}{'':>9}{answers[0][2]:>9.2f}")
        return misses

    def expect(holds: bool, what: str) -> None:
        nonlocal good
        if not holds:
            good = False
            print(f"  MISSED: {what}")

    with tempfile.TemporaryDirectory() as folder:
        program = build(folder)
        cache.cached("stored", lambda: [1])
        ask("nobody stopped")
        for end in ("continued", "killed"):
            holder = Holder(program, segment.name)
            before = cache.stats()
            found = ask("holder stopped")
            after = cache.stats()
            bypassed = after.bypasses["lock"] - before.bypasses["lock"]
            expect(bypassed == askers * calls, f"{bypassed} bypasses for the lock, expected {askers * calls}")
            expect(after.entries == before.entries, "something was stored without the lock")
            expect(max(found) < LOCK_LIMIT_MS, f"a call took {max(found):.0f} ms")
            ms, error = Child(_begin, settings, next(_keys)).result()
            line("holder stopped: first call of a new process", [ms])
            expect(not error, f"a process that begins meanwhile is not answered (P8): {error}")
            expect(ms < LOCK_LIMIT_MS, f"the first call of a new process took {ms:.0f} ms")
            bypassed = cache.stats().bypasses["lock"] - after.bypasses["lock"]
            expect(bypassed == 1, f"{bypassed} bypasses for the lock by the new process, expected 1")
            begin = now()
            try:
                cache.reset()
                expect(False, "a reset went through beside the lock's holder")
            except BusyError:
                line("holder stopped: reset raises BusyError", [(now() - begin) / 1e6])
            begin = now()
            holder.end(end)
            key = next(_keys)
            while cache.get(key) is None:  # it has to be scheduled, or to die, first
                cache.cached(key, lambda key=key: key)
            line(f"holder {end}: until a miss is stored", [(now() - begin) / 1e6])
            holder.wait()
            bypassed = cache.stats().bypasses["lock"]
            steals = cache.stats().steals - after.steals
            expect(steals == (end == "killed"), f"{steals} steals of the lock")
            ask(f"holder {end}")
            expect(cache.stats().bypasses["lock"] == bypassed, "bypasses go on")
            expect(cache.verify() == [], "verify finds faults")
    for asker in crew:
        asker.send(None)
    reap_all()
    return good


_keys = iter(range(1 << 60))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.takeover", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    cache_settings = {"memory_limit": "4 MiB", "hot_objects": False}
    settings = {"namespace": f"takeover-{os.getpid()}", "caches": {"c": cache_settings}}
    coopshm.configure(settings)
    cache = coopshm.open("c")
    try:
        print(f"  {'milliseconds':<46}{'n':>6}{'min':>9}{'p50':>9}{'p99':>9}{'max':>9}")
        worst = 0.0
        for waiters in (1, 8, 64):
            name = f"owner killed, {waiters} waiter{'s' * (waiters > 1)}"
            worst = max(worst, lines(name, takeovers(settings, cache, rounds, waiters)))
        few = max(rounds // 5, 1)
        lines("owner killed, its forked child lives, 1 waiter", takeovers(settings, cache, few, 1, fork=True))
        lines("owner killed, the first of 8 waiters stopped", takeovers(settings, cache, few, 8, sentinel="stop"))
        lines("owner and the first of 8 waiters killed", takeovers(settings, cache, few, 8, sentinel="kill"))
        print()
        good = lock_holder(settings, cache)
        print()
        print(f"takeover p99 {worst:.2f} ms, target {TARGET_MS:g} ms: {'met' if worst <= TARGET_MS else 'MISSED'}")
        print(f"stopped lock holder: {'as promised' if good else 'NOT as promised'}")
        return 0 if good and worst <= TARGET_MS else 1
    finally:
        reap_all()
        cache.destroy()


if __name__ == "__main__":
    from tests.soak import takeover  # so that the fork server's processes find its functions by this name

    sys.exit(takeover.main())
