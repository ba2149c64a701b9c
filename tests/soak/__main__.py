"""Everything at once on one small cache, while processes are killed and stopped: `make soak SECONDS=...`.

Workers (worker.py) hit, miss, compute, nest, fail, hold views and arrays, reset, fork. The herd (killer.py) kills and
stops them at random instructions, a hundred a second and more. This process attaches too, survives, runs `verify` now
and then, judges the histories (checks.py), and looks at what is left (after.py). Exit code 1 on any violation.

What is random follows from --seed; what the scheduler does, does not. A violation is printed with the lives concerned.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the herd must not have threads

import argparse
import secrets
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from coopshm import Cache, config
from coopshm.errors import BusyError

from . import after, calls, goods, report
from .checks import Histories
from .killer import HANG_S, Herd, Pace, be_nice, delay_of
from .records import Board, Log, now
from .witness import Witness

#: Histories are judged this long after the fact: by then all that happened before has been written down. A stop takes
#: at most 1.5 s; a process may be stopped again and again.
_LAG_NS = 8_000_000_000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--processes", type=int, default=8, help="workers at a time, up to 64 (default 8)")
    parser.add_argument("--seed", type=int, default=None, help="of all that is random; default: by chance")
    parser.add_argument("--memory-limit", default="6 MiB", help="of the cache (default 6 MiB: it is often full)")
    parser.add_argument("--kills", type=float, default=120, help="SIGKILLs a second, about (default 120)")
    parser.add_argument("--stops", type=float, default=None, help="SIGSTOPs a second (default 2 a worker)")
    parser.add_argument("--no-signals", action="store_true", help="no handlers that raise in the middle of calls")
    options = parser.parse_args()
    if not 1 <= options.processes <= 64:
        parser.error("--processes: 1 to 64")
    if options.seed is None:
        options.seed = secrets.randbits(32)
    if options.stops is None:
        options.stops = 2.0 * options.processes
    return options


def configs(namespace: str, memory_limit: str) -> tuple[config.Config, ...]:
    return tuple(
        config.load({"namespace": namespace, "caches": {"soak": {"memory_limit": memory_limit, "hot_objects": hot}}})
        for hot in (True, True, "share", False)
    )


class Watch:
    """What this process sees of the cache while it goes on."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.faults: list[tuple[str, str]] = []
        self.verified = self.busy = self.looks = self.full = self.peak = 0
        self.peak_reserved = 0
        self.path = Path(f"/dev/shm{cache._attachment.segment.name}")
        self.inode = self.path.stat().st_ino

    def look(self) -> None:
        stats = self.cache.stats()
        self.looks += 1
        self.full += stats.full
        self.peak = max(self.peak, stats.processes)
        self.peak_reserved = max(self.peak_reserved, stats.reserved_bytes)
        if self.inode and (not self.path.exists() or self.path.stat().st_ino != self.inode):
            self.inode = 0
            text = f"at {now()}: {self.path} is another object, or none; if nothing is 'unlinked', then from outside"
            self.faults.append(("replaced", text))
        if stats.bytes_used > stats.memory_limit:
            self.faults.append(("P4", f"{stats.bytes_used} bytes used of {stats.memory_limit}"))

    def verify(self) -> None:
        try:
            found = self.cache.verify()
        except BusyError:
            self.busy += 1
            return
        self.verified += 1
        for fault in found:
            self.faults.append(("verify", f"at {now()}, generation {self.cache.stats().generation}: {fault}"))


class Stuck(Exception):  # noqa: N818
    """This process, which is neither killed nor stopped, does not get on."""


def be_stuck(*_: Any) -> None:
    raise Stuck


def soak(options: argparse.Namespace, namespace: str) -> int:
    log, board = Log(), Board(options.processes)
    goods.fill_pool(options.seed)
    settings = configs(namespace, options.memory_limit)
    shared = calls.Shared(options.seed, log, board, settings, not options.no_signals)
    calls.prepare()
    assert threading.active_count() == len(os.listdir("/proc/self/task")) == 1
    me = os.getpid()
    herd = os.fork()
    if herd == 0:
        Herd(shared, options.processes, Pace(options.kills, options.stops)).run(me)
    be_nice(-10)
    cache = Cache(namespace, settings[0].cache("soak"))
    watch, histories = Watch(cache), Histories()
    witness = histories.witness = Witness(cache._attachment.segment)
    texts: list[dict[str, Any]] = []
    begin = now()
    board.word = 1
    next_verify = next_settle = begin
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and clean up
    signal.signal(signal.SIGALRM, be_stuck)
    signal.alarm(int(options.seconds + 2 * HANG_S))
    try:
        while now() - begin < options.seconds * 1e9 and os.waitpid(herd, os.WNOHANG)[0] == 0:
            batch = log.read()
            histories.feed(batch)
            texts += log.read_faults()
            if len(batch) < 1000:
                histories.pauses += nap()
            witness.look()
            if now() >= next_verify:
                watch.look()
                watch.verify()
                next_verify = now() + 300_000_000
            if now() >= next_settle:
                histories.settle(now() - _LAG_NS)
                next_settle = now() + 2_000_000_000
    except Stuck:
        texts.append({"what": "hang", "who": "the process that looks on", "text": traceback.format_exc()})
    finally:
        board.word = 2
        signal.alarm(0)
    seconds = (now() - begin) / 1e9
    ended = end_herd(herd)
    while len(batch := log.read()):
        histories.feed(batch)
    histories.settle(1 << 63)
    texts += log.read_faults()
    if not ended:
        texts.append({"what": "left behind", "who": "the herd", "text": "it does not end"})
    watch.look()
    stats = cache.stats()
    signal.alarm(int(4 * HANG_S))
    try:
        left = after.look(cache, max(watch.peak, options.processes))
        cache.destroy()
    except Stuck:
        left = after.Leftovers([("hang", f"after the last kill: {traceback.format_exc()}")], {})
    signal.alarm(0)
    found = [*((t["what"], f"{t['who']}: {t['text']}") for t in texts), *histories.violations, *watch.faults]
    found += left.faults
    found += [("left behind", f"/dev/shm/{name}") for name in after.segments_of(namespace)]
    found += [("left behind", f"process {pid}") for pid in processes_of(herd)]
    report.table(options, seconds, histories, watch, stats, left, found)
    return 1 if found else 0


def nap() -> list[tuple[int, int]]:
    """Sleep a little. When that took far longer, without waiting for a CPU, then the (virtual) machine stood still."""
    waited, begin = delay_of(os.getpid()), now()
    time.sleep(0.02)
    end = now()
    lost = end - begin - (delay_of(os.getpid()) - waited)
    return [(begin, end)] if lost > 100_000_000 else []


def end_herd(herd: int) -> bool:
    deadline = now() + int((HANG_S + 20) * 1e9)
    while now() < deadline:
        try:
            if os.waitpid(herd, os.WNOHANG)[0]:
                return True
        except ChildProcessError:  # it ended before
            return True
        time.sleep(0.005)
    return False


def processes_of(session: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(path.name)) == session:
                found.append(int(path.name))
        except ProcessLookupError:
            pass
    return found


def main() -> int:
    options = arguments()
    namespace = f"soak-{os.getpid()}-{options.seed}"
    print(f"soak: seed {options.seed}, {options.processes} processes, {options.seconds:g} s", flush=True)
    me = os.getpid()
    try:
        return soak(options, namespace)
    finally:
        if os.getpid() == me:  # workers come through here as well, when they end by sys.exit
            for name in after.segments_of(namespace):
                (Path("/dev/shm") / name).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
