"""What the soak's workers and their forked children do between their calls: hold, re-check, reset, fork, end.

Everything at once, by chance, from a seed of each life's own. What goes wrong is a line in the file of faults; a worker
goes on after it.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import time
import traceback
from typing import NoReturn

from coopshm import NoCache
from coopshm.errors import BusyError

from . import goods, records
from .calls import Caller, Interrupt
from .records import CACHED, FORK, GET, HELD, OTHER, RESET, RESETTING, VIEW, Log, now

_CHILD_WATCHDOG_S = 30
_RESETS_A_SECOND = 2.0
_STORM_NS = 3_000_000_000


class Worker(Caller):
    def reset(self) -> None:
        rng = self.rng
        version = None if rng.random() < 0.7 else rng.choice(("a", "b", 7, [1, 2]))
        waited, begin = self.delay(), now()
        self.own_reset = 0
        if self.depth == 0:
            self.board.enter(self.slot, self.who, 0, RESETTING, begin, waited)
        code = 0
        try:
            self.cache.reset(version)
        except BusyError:
            code = 1
        except Exception:
            self.fault("error", traceback.format_exc())
        end = now()
        if self.depth == 0:
            self.board.leave(self.slot)
        self.log.write(
            RESET, self.who, code=code, delay=max(self.delay() - waited, 0) // 1000, begin=begin, end=end,
            generation=self.own_reset if code == 0 else 0,
        )  # fmt: skip

    def look_around(self) -> None:
        self.board.enter(self.slot, self.who, 0, OTHER, now(), self.delay())
        try:
            r = self.rng.random()
            if r < 0.2:
                if faults := self.cache.verify():
                    self.fault("verify", "; ".join(faults))
            elif r < 0.4:
                found = self.cache.keys()
                known = {goods.cache_key(key) for key in range(goods.KEYS)}
                strange = [k for k in found if k not in known and not (type(k) is tuple and k[0] == "hammer")]
                if len(set(found)) != len(found) or strange:
                    self.fault("wrong value", f"keys() returned {len(found)} keys, strange ones {strange[:5]}")
            elif r < 0.8:
                stats = self.cache.stats()
                if stats.bytes_used > stats.memory_limit:
                    self.fault("P4", f"{stats.bytes_used} bytes used of {stats.memory_limit}")
            else:
                self.cache.version()
        except BusyError:
            pass  # of verify
        except Exception:
            self.fault("error", traceback.format_exc())
        self.board.leave(self.slot)

    def hammer(self) -> None:
        """Quick misses of own keys, so that many a kill falls into a critical section."""
        look, n, ballast = self.stamp.words.__getitem__, self.rng.randrange(1 << 30), bytes(self.rng.randrange(16384))
        for i in range(n, n + 50):
            key = ("hammer", self.who, i if i % 3 else 0)
            waited, begin = self.delay(), now()
            self.board.enter(self.slot, self.who, 0, OTHER, begin, waited)
            try:
                value = self.cache.cached(key, lambda i=i: (i, look(0), ballast) if i % 3 else NoCache((i, look(0))))
            except Exception:
                self.fault("error", traceback.format_exc())
                break
            if value[:2] != (i, self.stamp.seen):
                self.fault("wrong value", f"{value} for {key}, generation last seen {self.stamp.seen}")
            end = now()
            self.board.leave(self.slot)
            delay = max(self.delay() - waited, 0) // 1000
            self.log.write(records.CALL, self.who, how=OTHER, delay=delay, begin=begin, end=end)

    def recheck(self, every: bool = False) -> None:
        """Are held values still what they were? Those whose time has come are dropped (P3)."""
        at = now()
        for held in self.held if every else self.held[-1:]:
            code = 0
            try:
                if goods.check(held.key, held.value) != held.generation:
                    raise goods.Wrong(f"key {held.key}: held of generation {held.generation}, now another")
            except goods.Wrong as exc:
                code = 1
                self.fault("P3", f"a held {type(held.value).__name__}: {exc}")
            self.log.write(HELD, self.who, code=code, key=held.key, begin=at, generation=held.generation)
        self.held = [held for held in self.held if held.until > at]

    def fork(self, return_from_fn: bool = False) -> None:
        self.reap()
        if self.is_child or self.children:
            return
        self.child += 1
        was_busy, self.busy = self.busy, False
        self.log.write(FORK, self.who, begin=now(), extra=self.child)
        pid = os.fork()
        if pid == 0:
            self.be_child(return_from_fn)
            return
        self.board.set_child(self.slot, pid, self.who + self.child)
        self.children.append(pid)
        self.busy = was_busy

    def be_child(self, return_from_fn: bool) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_CHILD_WATCHDOG_S)
        self.who += self.child
        self.sniper = None
        self.is_child, self.children, self.open = True, [], []
        self.slot = self.board.slots  # a line nobody looks at
        self.rng = random.Random(self.seed << 64 | self.who)
        self._read_delay()
        if self.rng.random() < 0.3:
            self.be_sniper(1, 4)
        self.recheck(every=True)
        for _ in range(self.rng.randrange(12)):
            self.act()
        self.recheck(every=True)
        if return_from_fn:
            self.leaving = True
            return
        self.leave()

    def leave(self) -> NoReturn:
        """End, in one of the ways in which processes end."""
        r = self.rng.random()
        if r < 0.2:
            os.execv("/bin/true", ["true"])
        if r < 0.4 and self.depth == 0:
            sys.exit()  # with the interpreter's finalisation, and live views
        os._exit(0)

    def reap(self, wait: bool = False) -> None:
        for pid in self.children[:]:
            found, status = os.waitpid(pid, 0 if wait else os.WNOHANG)
            if found:
                self.children.remove(pid)
                judge_child(self.log, self.who, status)

    def spawn(self) -> None:
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)

    def act(self) -> None:
        rng = self.rng
        if self.board.is_due(rng.expovariate(_RESETS_A_SECOND)):
            self.reset()
        if self.who >> 16 & 3 in (1, 2) and rng.random() < 0.4:
            self.hammer()
        r = rng.random()
        # Half of all calls go to a few keys, so that they meet.
        key = rng.randrange(goods.KEYS) if r < 0.5 else rng.randrange(6) * 17 % goods.KEYS
        if r < 0.80:
            self.ask(CACHED, key, hold=r % 0.1 < 0.02)
        elif r < 0.90:
            self.ask(VIEW, key // 8 * 8 + rng.choice((goods.BYTES, goods.LARGE, goods.SMALL)), hold=r < 0.88)
        elif r < 0.93:
            self.ask(GET, key)
        elif r < 0.99:
            self.recheck()
        elif r < 0.9903:
            self.reset()
        elif r < 0.997:
            self.fork()
        elif r < 0.9985:
            self.look_around()
        elif r < 0.9987:
            self.spawn()
        elif r < 0.9996:
            gc.collect()
        elif not self.is_child:
            self.retire()

    def retire(self) -> NoReturn:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.reap(wait=True)
        self.leave()

    def storm(self) -> None:
        """Resets in quick succession, for some seconds; in the seconds between the cache can fill."""
        pause = 0.0003 * 20 ** self.rng.random()
        while now() // _STORM_NS % 3 == 0:
            self.reset()
            time.sleep(self.rng.expovariate(1 / pause))

    def run(self) -> NoReturn:
        if self.who >> 16 & 15 == 9:
            self.storm()
        while True:
            try:
                self.act()
                if self.children:
                    self.reap()
            except Interrupt:  # it came right behind the call
                self.depth, self.busy = 0, False
                self.open.clear()
                self.board.leave(self.slot)


def judge_child(log: Log, who: int, status: int) -> None:
    """A forked child may end, or be killed; it may not crash."""
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
        what = "hang" if os.WTERMSIG(status) == signal.SIGALRM else "crash"
        log.fault(what, who, f"a forked child ended by {signal.Signals(os.WTERMSIG(status)).name}")
    elif os.WIFEXITED(status) and os.WEXITSTATUS(status):
        log.fault("crash", who, f"a forked child ended with exit code {os.WEXITSTATUS(status)}")
