"""A whole deployment is killed, wherever its processes are, and started again: with `lifetime = "app"` the next one
begins cold, exactly once however many processes begin at the same moment, and is served nothing of the former one."""

from __future__ import annotations

import os
import random
import signal
from typing import Any

import coopshm
from coopshm import NoCache
from tests.conftest import clean
from tests.procs import Child, Tally

PROCESSES, ROUNDS = 4, 8


def _serve(conn: Any, settings: Any, deployment: int, number: int, stale: Tally) -> None:
    """A worker: says how it began, says when it has stored something, and goes on until it is killed."""
    coopshm.configure(settings)
    rng = random.Random(deployment * 100 + number)
    conn.send("ready")
    conn.recv()
    c = coopshm.open("c")
    value = c.cached("first", lambda: (deployment, number))
    segment = c._attachment.segment
    conn.send((segment.flipped, segment.generation(), value))
    for turn in range(1 << 30):
        _work(c, rng, deployment, stale)
        if turn == 10:
            conn.send("stored")


def _work(c: coopshm.Cache, rng: random.Random, deployment: int, stale: Tally) -> None:
    key, kind = rng.randrange(40), rng.randrange(5)

    def fn() -> Any:
        if kind == 0:
            raise LookupError(deployment)
        if kind == 1:
            return NoCache((deployment, b""))
        return (deployment, bytes(rng.randrange(1 << rng.randrange(18))))

    try:
        found = c.cached(key, fn)[0]
        if kind == 2:
            found = min(found, int(bytes(c.view(("view", key), lambda: b"%d" % deployment) or b"-1")))
    except LookupError as exc:
        found = exc.args[0]
    if found != deployment:
        stale.add(f"deployment {deployment} was served a value of {found}")


def _begin(settings: Any, deployment: int, stale: Tally, n: int) -> list[Child]:
    children = [Child(_serve, settings, deployment, i, stale) for i in range(n)]
    for child in children:
        assert child.receive() == "ready"
    for child in children:
        child.send("go")
    return children


def _kill(children: list[Child], rng: random.Random) -> None:
    for child in rng.sample(children, len(children)):
        os.kill(child.pid, signal.SIGKILL)
    for child in children:
        child.wait_dead()


def test_after_each_kill_of_all_one_process_flips_and_nothing_of_the_former_deployment_is_served(
    settings, cache, tally
) -> None:
    rng = random.Random(1)
    for deployment in range(ROUNDS):
        children = _begin(settings(lifetime="app"), deployment, tally, PROCESSES)
        begun = [child.receive() for child in children]
        assert sum(flipped for flipped, _, _ in begun) == (deployment > 0), begun
        assert {generation for _, generation, _ in begun} == {1 + deployment}
        assert len({value for _, _, value in begun}) == 1, "computed once"
        assert begun[0][2][0] == deployment
        for child in children:
            assert child.receive() == "stored"
        _kill(children, rng)
    assert tally.items() == []
    c = cache(lifetime="app")
    assert c.stats().generation == 1 + ROUNDS
    assert c.cached("first", lambda: "cold") == "cold"
    assert clean(c)


def test_it_begins_cold_as_well_when_some_are_killed_while_they_begin(settings, cache, tally) -> None:
    rng = random.Random(2)
    generation = 0
    for deployment in range(ROUNDS):
        children = _begin(settings(lifetime="app"), deployment, tally, PROCESSES + 2)
        doomed, living = children[:PROCESSES], children[PROCESSES:]
        for _ in range(rng.randrange(3000)):
            os.getppid()
        _kill(doomed, rng)
        begun = [child.receive() for child in living]
        assert {value[0] for _, _, value in begun} == {deployment}, begun
        assert sum(flipped for flipped, _, _ in begun) <= 1
        # One of the doomed may have begun, stored something and died before any other had come.
        assert generation + 1 <= begun[0][1] <= generation + 1 + PROCESSES
        generation = max(seen for _, seen, _ in begun)
        for child in living:
            assert child.receive() == "stored"
        _kill(living, rng)
    assert tally.items() == []
    assert clean(cache(lifetime="app"))
