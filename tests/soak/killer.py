"""The herd: forks the soak's workers, kills, stops and continues them, replaces the dead at once.

All of it is one process without threads. It is the parent of the workers, so their pids are its own until it reaps
them, and it is a subreaper, so what a killed worker has forked comes to it as well. Signals go through pidfds: pids are
reused within minutes here. It has never attached the cache, so each worker begins from nothing.

A replacement costs some milliseconds: the fork of a small process with everything imported, and one attach.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import random
import signal
import time
import traceback
from typing import NamedTuple, NoReturn

from coopshm.errors import BusyError

from . import records
from .calls import Shared, is_sniper
from .records import BORN, CONT, DEAD, KILL, STOP, UNFINISHED, libc, name_of, now
from .worker import Worker, judge_child

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

#: A call that takes this many seconds, not counting those without a CPU, has its stack dumped; then it is killed.
#: Far longer than any call with all its reasons (checks.py) should take: so that a hang ends the soak, and says where.
HANG_S = 30.0


_AT_A_TIME = 4


class Pace(NamedTuple):
    """Events per second, for a part of the time in `calm`, which lets lives grow older."""

    kills: float
    stops: float
    calm: float = 0.15  # of `kills`, every third second

    def kills_at(self, seconds: float) -> float:
        return self.kills * (self.calm if int(seconds) % 3 == 2 else 1.3)


class Target:
    """A process that signals are sent to."""

    def __init__(self, pid: int, who: int, slot: int) -> None:
        self.pid, self.who, self.slot = pid, who, slot
        self.fd = os.pidfd_open(pid)
        self.killed_at = 0
        self.dumped = False

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.fd, number)  # type: ignore[attr-defined,unused-ignore]

    def close(self) -> None:
        os.close(self.fd)


def die_with(parent: int) -> None:
    """End this process when `parent`, which forked it, ends."""
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def delay_of(pid: int) -> int:
    """Nanoseconds for which a process was runnable and had no CPU."""
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[1])


_NICENESS = os.getpriority(os.PRIO_PROCESS, 0)


def be_nice(more: int) -> None:
    """By so much nicer than the soak was started."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS + more)


class Herd:
    def __init__(self, shared: Shared, workers: int, pace: Pace) -> None:
        self.shared, self.log, self.board = shared, shared.log, shared.board
        self.pace = pace
        self.rng = random.Random(shared.seed)
        self.workers: dict[int, Target] = {}  # by pid
        self.stopped: list[tuple[int, Target]] = []  # when to continue whom
        self.lives = 0
        self.slots = workers

    def run(self, parent: int) -> NoReturn:
        """The main loop. In a worker that ends by sys.exit, SystemExit comes out of this."""
        os.setsid()
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        die_with(parent)
        gc.collect()
        gc.freeze()
        be_nice(-10)  # else the workers leave it no CPU to kill them
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))
        while self.board.word == 0:
            time.sleep(0.001)
        begin = now()
        for slot in range(self.slots):
            self.replace(slot)
        next_kill = next_stop = next_look = begin
        while self.board.word == 1:
            at = now()
            if at >= next_kill:
                self.kill_some()
                gap = self.rng.expovariate(self.pace.kills_at((at - begin) / 1e9)) if self.pace.kills else 1e9
                next_kill = max(next_kill, at - 20_000_000) + int(gap * 1e9)
            if at >= next_stop:
                self.stop_one(at)
                gap = self.rng.expovariate(self.pace.stops) if self.pace.stops else 1e9
                next_stop = at + int(gap * 1e9)
            self.continue_due(at)
            if at >= next_look:
                self.look_for_hangs(at)
                next_look = at + 1_000_000_000
            self.reap()
            due = min([next_kill, next_stop, next_look, *(until for until, _ in self.stopped)])
            signal.sigtimedwait((signal.SIGCHLD,), min(max(due - now(), 0) / 1e9, 0.05))
            self.reap()
        self.end()
        os._exit(0)

    def replace(self, slot: int) -> None:
        self.lives += 1
        who = self.lives << 16
        self.board.leave(slot)
        self.board.set_child(slot, 0, 0)
        parent = os.getpid()
        self.log.write(BORN, who, begin=now())
        pid = os.fork()
        if pid == 0:
            die_with(parent)
            be_nice(0)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
            for target in self.workers.values():
                target.close()
            self.workers.clear()
            self.live(slot, who)
        self.workers[pid] = Target(pid, who, slot)

    def live(self, slot: int, who: int) -> NoReturn:
        faulthandler.register(signal.SIGUSR1, self.log.faults_fd)
        try:
            worker = Worker(self.shared, slot, who)
        except BusyError as exc:
            self.log.fault("attach", who, f"opening the cache: {exc!r}")
            os._exit(0)
        try:
            worker.run()
        except Exception:
            self.log.fault("crash", who, traceback.format_exc())
            os._exit(1)
        os._exit(0)

    # ---- signals

    def kill(self, target: Target) -> None:
        target.killed_at = now()
        self.log.write(KILL, target.who, begin=target.killed_at)
        target.send(signal.SIGKILL)

    def kill_some(self) -> None:
        alive = [target for target in self.workers.values() if not target.killed_at]
        if not alive:
            return
        r = self.rng.random()
        if r < 0.01:
            victims = alive
        elif r < 0.1:
            victims = self.rng.sample(alive, min(len(alive), 2))
        else:  # snipers, which end by themselves, seldom
            victims = [self.rng.choice([t for t in alive if not is_sniper(t.who) or r > 0.85] or alive)]
        child = self.child_of(self.rng.choice(alive)) if r > 0.9 else None
        if child:
            self.kill(child)
            child.close()
            return
        for victim in victims:
            self.kill(victim)

    def child_of(self, worker: Target) -> Target | None:
        pid, who = self.board.child(worker.slot)
        if not pid:
            return None
        try:
            child = Target(pid, who, -1)
        except (ProcessLookupError, OSError):
            return None
        try:
            if os.getsid(pid) == os.getsid(0) and pid not in self.workers:  # the pidfd's: it has not been reused
                return child
        except ProcessLookupError:
            pass
        child.close()
        return None

    def stop_one(self, at: int) -> None:
        if not self.workers or len(self.stopped) * 2 > self.slots:
            return
        worker = self.rng.choice(list(self.workers.values()))
        try:
            target = self.child_of(worker) if self.rng.random() < 0.15 else Target(worker.pid, worker.who, worker.slot)
        except (ProcessLookupError, OSError):
            return
        if target is None:
            return
        r = self.rng.random()
        seconds = 0.02 * r if r < 0.7 else 0.3 * self.rng.random() if r < 0.95 else 0.3 + 1.2 * self.rng.random()
        self.log.write(STOP, target.who, begin=now())
        target.send(signal.SIGSTOP)
        self.stopped.append((at + int(seconds * 1e9), target))

    def has_stopped(self, worker: Target) -> None:
        """A sniper has stopped itself, perhaps while it held the lock."""
        at = now()
        self.log.write(STOP, worker.who, begin=at)
        until = at + int(1e9 * min(self.rng.expovariate(10), 1.5))
        self.stopped.append((until, Target(worker.pid, worker.who, worker.slot)))

    def continue_due(self, at: int) -> None:
        for entry in [entry for entry in self.stopped if entry[0] <= at]:
            self.stopped.remove(entry)
            entry[1].send(signal.SIGCONT)
            self.log.write(CONT, entry[1].who, end=now())
            entry[1].close()

    # ---- deaths

    def reap(self) -> bool:
        """Bury and replace the dead, some at a time: others must be continued. Returns whether anybody is left."""
        for _ in range(_AT_A_TIME):
            try:
                changed = os.waitid(os.P_ALL, 0, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return False
            if changed is None:
                return True
            worker = self.workers.get(changed.si_pid)
            waited = delay_of(changed.si_pid) if worker else 0  # while it is there
            status = os.waitpid(changed.si_pid, os.WUNTRACED)[1]
            if os.WIFSTOPPED(status):
                if worker and all(target.pid != worker.pid for _, target in self.stopped):
                    self.has_stopped(worker)
                continue
            self.workers.pop(changed.si_pid, None)
            if worker is None:
                judge_child(self.log, 0, status)  # of a worker that has died
                continue
            self.bury(worker, status, waited)
            if self.board.word == 1:
                self.replace(worker.slot)
        return True

    def bury(self, worker: Target, status: int, waited: int) -> None:
        begin, who, key, how, waited_before = self.board.line(worker.slot)
        if begin and who == worker.who:
            end, delay = worker.killed_at or now(), max(waited - waited_before, 0) // 1000
            self.log.write(UNFINISHED, who, how=how, key=key, delay=delay, begin=begin, end=end)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number != signal.SIGKILL or not (worker.killed_at or is_sniper(worker.who)):
                self.log.fault("crash", worker.who, f"ended by {signal.Signals(number).name}")
        elif os.WEXITSTATUS(status):
            self.log.fault("crash", worker.who, f"ended with exit code {os.WEXITSTATUS(status)}")
        self.log.write(
            DEAD, worker.who, how=not worker.killed_at, begin=worker.killed_at, end=now(), code=status & 0x7FFF
        )
        worker.close()

    def look_for_hangs(self, at: int) -> None:
        stopped = {target.who for _, target in self.stopped}
        for worker in self.workers.values():
            begin, who, key, how, waited = self.board.line(worker.slot)
            if not begin or who != worker.who or at - begin < HANG_S * 1e9 or who in stopped:
                continue
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if at - begin - (delay_of(worker.pid) - waited) < HANG_S * 1e9:
                    continue
            if worker.dumped:
                self.kill(worker)
                continue
            worker.dumped = True
            self.log.fault(
                "hang", who, f"{records.HOWS[how]} of key {key} takes {(at - begin) / 1e9:.1f} s; its stack follows"
            )
            worker.send(signal.SIGUSR1)

    def end(self) -> None:
        """Kill all workers, as they are; wait for what they have forked, and kill that, too, when it takes long."""
        for _, target in self.stopped:
            if target.slot < 0:
                target.send(signal.SIGCONT)
        for worker in self.workers.values():
            self.kill(worker)
        deadline = now() + 10_000_000_000
        while self.reap():
            if now() > deadline:
                self.kill_orphans()
            time.sleep(0.001)
        self.log.write(DEAD, 0, end=now())

    def kill_orphans(self) -> None:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            for pid in map(int, file.read().split()):
                self.log.fault("left behind", 0, f"{name_of(0)}: process {pid} did not end by itself")
                os.kill(pid, signal.SIGKILL)
