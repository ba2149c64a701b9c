"""The processes of one host: `python -m tests.soak_cluster.crew HOST SEED WORKERS`, run in it.

This process has no threads and uses no cache. It forks the workers, and another one in the place of each that dies. The
first process that it forks reads questions from stdin, a line of JSON each, and answers them on stdout; nobody kills
that one.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from coopshm.resets import nodes_of
from tests.procs import forked

from . import goods
from .caller import Caller, stamp_of
from .events import Control, Log, now

_PAUSE = 0.006  # seconds between a worker's calls, on average
_RESET = 0.004  # chance of one after a call


def work(caller: Caller, control: Control) -> None:
    """A worker's life: calls until told to end."""
    rng = caller.rng
    turn = 0
    while control.word != Control.END:
        turn += 1
        cache = "roomy" if rng.random() < 0.7 else "tight"
        number = rng.randrange(goods.FEW if rng.random() < 0.5 else goods.MANY[cache])
        chance = rng.random()
        if chance < 0.15:
            caller.call(cache, number, "get")
        elif chance < 0.2:
            caller.call(cache, number, timeout=rng.choice((0.001, 0.05)), on_timeout=rng.choice(("raise", "compute")))
        else:
            caller.call(cache, number)
        if control.resets and rng.random() < _RESET:
            version = f"{caller.life} {turn}" if rng.random() < 0.3 else None
            caller.reset(cache, version, wait=0.5 if rng.random() < 0.2 else None)
        time.sleep(rng.expovariate(1 / _PAUSE))


class Answerer:
    """What the run asks a host."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def answer(self, question: dict[str, Any]) -> object:
        return getattr(self, question.pop("ask"))(**question)

    def pid(self) -> int:
        return os.getpid()

    def standing(self) -> dict[str, Any]:
        """Of each cache: the stamp, and what this host's sidecar takes each other node for."""
        found = {}
        for name, cache in self._caller.caches.items():
            segment = cache._attachment.segment
            nodes = {node.name: node.state for node in nodes_of(segment)}
            found[name] = {"stamp": stamp_of(segment), "nodes": nodes, "sidecar": segment.sidecar() is not None}
        return found

    def call(self, cache: str, key: str, how: str) -> dict[str, Any] | None:
        return self._caller.call(cache, key, how)

    def sound(self) -> dict[str, Any]:
        found = {}
        for name, cache in self._caller.caches.items():
            stats = cache.stats()
            alive = [flight for flight in cache._attachment.segment.flights() if flight.alive]
            found[name] = {
                "damage": cache.verify(),
                "left": {"flights": len(alive), "waiters": stats.waiters, "pins": stats.pinned_chunks},
                "processes": stats.processes,
                "stats": {
                    field: getattr(stats, field) for field in stats._fields if type(getattr(stats, field)) is int
                },
                "bypasses": dict(stats.bypasses),
            }
        return found

    def destroy(self) -> None:
        for cache in self._caller.caches.values():
            cache.destroy()

    def listen(self) -> None:
        for line in sys.stdin:
            print(json.dumps(self.answer(json.loads(line))), flush=True)


def main() -> None:
    host, seed, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    directory = Path(os.environ["SOAK_HOST"]).parent
    log, control = Log(directory), Control(directory)
    faulthandler.register(signal.SIGUSR1, all_threads=True)

    def listen() -> None:
        Answerer(Caller(host, f"{host}/0", f"{seed} {host}", log)).listen()

    living = {forked(listen): 0}
    life = 0
    while control.word == Control.WAIT:
        time.sleep(0.01)
    while living:
        while control.word == Control.GO and len(living) < workers + 1:
            life += 1
            who = f"{host}/{life}"
            pid = forked(lambda who=who: work(Caller(host, who, f"{seed} {who}", log), control))  # type: ignore[misc]
            log.write("born", who=who, host=host, pid=pid, at=now())
            living[pid] = life
        pid, status = os.wait()
        log.write("died", who=f"{host}/{living.pop(pid)}", at=now(), status=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
