"""how many hits a second do 1, 2, 4 and 8 processes get, and how many threads?

Each process (or thread of one process) asks for the same key in a loop, for the same time; the hits of all of
them are added up. What the processes get depends on the cores first, so lru_cache, which has nothing in
common between the processes, shows what this machine gives to any program: more processes than cores cannot
get more, and cores that share a physical one give less than twice. The multiple is that of one process. All
processes live from the start; those that a case does not need sleep. Values are bytes of 1 KiB, but where a
name says otherwise. Threads take turns with Python's global lock: more than one can get more only while
another is in a system call.
"""

from __future__ import annotations

import os
import threading
import timeit
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from . import peers
from .common import MIB, Bench, Sample, Table
from .peers import LRU, PEERS, UWSGI
from .peers.ours import HOT, OFF
from .peers.protocol import Client, Peer, Running
from .procs import CLOCK, Asked, sleep_until
from .values import DICT, KIB

COUNTS = (1, 2, 4, 8)

_CALLS = 200  # between two looks at the clock

#: Of value, until when, by how many threads; each process is sent the same.
Question = tuple[str, int, int, int]

_VALUES: dict[str, object] = {"bytes": KIB, "dict": DICT}

#: Those that values other than bytes are measured of as well.
_WITH_DICT = (OFF,)


def _hitter(connect: Callable[[], Client]) -> Callable[[Question], float]:
    clients = [connect()]
    timers: dict[tuple[str, int], timeit.Timer] = {}

    def timer(of: str, thread: int) -> timeit.Timer:
        """Return what hits in thread number `thread`."""
        at = 0 if clients[0].for_threads else thread
        if (of, at) not in timers:
            while len(clients) <= at:
                clients.append(connect())
            value = _VALUES[of]
            clients[at].put(f"key:{of}", value)
            statement, names = clients[at].hit(f"key:{of}", value)
            if eval(statement, names) != value:
                raise RuntimeError("not a hit")
            timers[of, at] = timeit.Timer(statement, globals=names)
            timers[of, at].timeit(_CALLS)
        return timers[of, at]

    def loop(hits: timeit.Timer, start: int, duration: int) -> float:
        """Return hits a second."""
        done = 0
        sleep_until(start)
        while CLOCK() < start + duration:
            hits.timeit(_CALLS)
            done += _CALLS
        return done / (CLOCK() - start) * 1e9  # who got no core, or no lock, until late had all this time

    def answer(question: Question) -> float:
        of, start, duration, n_threads = question
        hits = [timer(of, thread) for thread in range(n_threads)]
        if n_threads == 1:
            return loop(hits[0], start, duration)
        rates: list[float] = []
        threads = [threading.Thread(target=_note, args=(rates, loop, one, start, duration)) for one in hits]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(rates)

    return answer


def _note(
    rates: list[float], loop: Callable[[timeit.Timer, int, int], float], hits: timeit.Timer, start: int, duration: int
) -> None:
    rates.append(loop(hits, start, duration))


class _Contender:
    """One peer, with its processes, for one value."""

    def __init__(self, peer: Peer, of: str, hitters: Sequence[Asked[Question, float]]) -> None:
        self.peer, self.of, self.hitters = peer, of, hitters
        self.name = peer.name if of == "bytes" else f"{peer.name}, dict of 4 items"
        self.rates: dict[tuple[str, int], list[float]] = {}
        self.failed = False

    def ask(self, kind: str, n: int, duration: int) -> None:
        """Measure n processes, or n threads of one."""
        start = CLOCK() + 5_000_000
        asked = self.hitters[:n] if kind == "processes" else self.hitters[:1]
        for hitter in asked:
            hitter.send((self.of, start, duration, n if kind == "threads" else 1))
        self.rates.setdefault((kind, n), []).append(sum(hitter.receive() for hitter in asked))


def run(bench: Bench) -> list[Table]:
    duration = bench.pick(100_000_000, 10_000_000)
    counts = bench.pick(COUNTS, COUNTS[:2])
    asked = (LRU, HOT, OFF, *PEERS)
    with ExitStack() as stack:
        running = stack.enter_context(peers.started(bench, asked, processes=max(counts), room=4 * MIB))
        contenders: list[_Contender] = []
        for peer, started in running.items():
            peers.attempt(bench, peer, "starting", partial(_start, stack, contenders, peer, started, max(counts)))
        for _ in bench.rounds(7, 2):
            for kind in ("processes", "threads"):
                for n in counts:
                    for one in contenders:
                        # Threads inside uWSGI need a configuration of their own; they would tell nothing new.
                        if not one.failed and (kind, one.peer) != ("threads", UWSGI):
                            ask = partial(one.ask, kind, n, duration)
                            one.failed = not peers.attempt(bench, one.peer, f"{n} {kind}", ask)
    good = [one for one in contenders if not one.failed]
    cores = len(os.sched_getaffinity(0))
    return [
        _table(f"Hits of processes on {cores} cores", "processes", good),
        _table("Hits of threads of one process", "threads", good),
    ]


def _start(stack: ExitStack, contenders: list[_Contender], peer: Peer, running: Running, processes: int) -> None:
    hitters = stack.enter_context(running.workers(processes, partial(_hitter, running.connect)))
    contenders.append(_Contender(peer, "bytes", hitters))
    if peer in _WITH_DICT:
        contenders.append(_Contender(peer, "dict", hitters))


def _table(title: str, kind: str, contenders: Sequence[_Contender]) -> Table:
    samples = [
        Sample(one.name, _counted(kind, n), values)
        for one in contenders
        for (of, n), values in one.rates.items()
        if of == kind
    ]
    return Table(title, "hits a second, by all", samples, _counted(kind, 1), contender_is="by", plot="rates")


def _counted(kind: str, n: int) -> str:
    return f"{n} {kind}" if n > 1 else "1 process" if kind == "processes" else "1 thread"
