"""The peers relay over real segments: several nodes on this machine, each with a namespace, a host and worker processes
of its own.

What contract.py tries in every way over hosts in memory is held here end to end, with `coopshm.cached` and
`coopshm.reset` in the workers. The relays and hosts of all nodes share this process's event loop, as a sidecar's would
have its own.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any

import pytest

import coopshm
from coopshm import config as configuration
from coopshm.cluster.host import SegmentHost
from coopshm.cluster.peers import Peers, PeersConfig
from coopshm.cluster.relay import NodeState
from tests.cluster.contract import until
from tests.cluster.hosting import LONG, Worker
from tests.cluster.loops import run
from tests.cluster.test_peers import PORT, address, trusted
from tests.conftest import SHM
from tests.procs import WATCHDOG, Child, Tally

Settings = Callable[..., dict[str, Any]]


class Node:
    """A host with its sidecar's insides, and some workers."""

    def __init__(self, settings: dict[str, Any], number: int, addresses: list[str], lease_timeout: float) -> None:
        self.settings = {**settings, "namespace": f"{settings['namespace']}-{number}"}
        self.name = f"web{number}"
        self.config = PeersConfig(
            name=self.name,
            namespace="test",
            listen=f"{addresses[number]}:{PORT}",
            nodes=[f"{each}:{PORT}" for each in addresses],
            trust=trusted(),
            lease_timeout=lease_timeout,
        )
        self.relay: Peers | None = None
        self.host: SegmentHost | None = None
        self.workers: list[Worker] = []

    async def start(self) -> None:
        loaded = configuration.load(self.settings)
        self.relay = Peers(self.config)
        self.host = SegmentHost(loaded.namespace, loaded.caches["c"], self.name, self.config.lease_timeout, self.relay)
        await self.relay.start({"c": self.host})
        await self.host.start()

    async def stop(self) -> None:
        if self.relay is not None and self.host is not None:
            relay, host, self.relay, self.host = self.relay, self.host, None, None
            await relay.stop(0)
            await host.stop()

    def sees(self) -> set[str]:
        assert self.relay is not None
        return {node.name for node in self.relay.status().nodes if node.connected}

    def together(self) -> set[str]:
        """The nodes that stand where this one does."""
        assert self.relay is not None
        nodes = self.relay.status().nodes
        return {node.name for node in nodes if node.caches["c"].state is NodeState.LIVE}


@asynccontextmanager
async def cluster(
    settings: dict[str, Any], tally: Tally, count: int, workers: int = 1, lease_timeout: float = LONG
) -> AsyncIterator[list[Node]]:
    addresses = [address() for _ in range(count)]
    nodes = [Node(settings, number, addresses, lease_timeout) for number in range(count)]
    try:
        for node in nodes:
            made = [asyncio.to_thread(Worker, node.settings, tally) for _ in range(workers)]
            node.workers = await asyncio.gather(*made)
        for node in nodes:
            await node.start()
        await connected(nodes)
        yield nodes
    finally:
        for node in nodes:
            await node.stop()
            for path in SHM.glob(f"coopshm:{node.settings['namespace']}:*"):  # the fixture knows of the test's own only
                path.unlink()


async def connected(nodes: list[Node]) -> None:
    """Return once these stand together, and each follows the others' logs."""
    names = {node.name for node in nodes}
    await until(lambda: all(node.sees() == names and node.together() == names - {node.name} for node in nodes))
    for node in nodes:
        await until(lambda node=node: node.relay is not None and not node.relay._following.behind("c"))


def wishes(node: Node) -> list[Any]:
    assert node.relay is not None
    return list(node.relay._asker._wishes.values())


async def looked(node: Node) -> None:
    """Return once the host has looked at its segment twice: what it was asked to do is done by then."""
    at = node.host._at if node.host is not None else None
    assert at is not None
    looks = at.looks
    await until(lambda: at.looks >= looks + 2)


@pytest.fixture
def conf(settings: Settings) -> dict[str, Any]:
    return settings(version=1)


def trial(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    run(main())


def test_workers_of_all_hosts_compute_each_key_once(conf: dict[str, Any], tally: Tally) -> None:
    async def test() -> None:
        async with cluster(conf, tally, 3, workers=2) as nodes:
            for key in range(10):
                answers = [worker.ask(key) for node in nodes for worker in node.workers]
                assert await asyncio.gather(*answers) == [("got", f"computed {key}")] * 6
            assert sorted(tally.items()) == sorted(map(repr, range(10)))

    trial(test)


@pytest.mark.parametrize("key", ["short", "long " * 100])
def test_what_fails_fails_for_all_and_is_computed_again(key: str, conf: dict[str, Any], tally: Tally) -> None:
    async def test() -> None:
        async with cluster(conf, tally, 3) as nodes:
            first = nodes[0].workers[0].ask(key, "fail", slow=True)
            assert await first == ("computing", key)
            others = [node.workers[0].ask(key) for node in nodes[1:]]
            await until(lambda: all(node.relay is not None and len(node.relay._asker) for node in nodes))
            await until(lambda: any(wish.wanted for wish in wishes(nodes[0])))
            await looked(nodes[0])
            nodes[0].workers[0].child.send("go on")
            said = await asyncio.to_thread(nodes[0].workers[0].child.receive)
            expected = ("raised", "FailingError", f"{key} failed")
            assert [said, *await asyncio.gather(*others)] == [expected] * 3
            assert await nodes[1].workers[0].ask(key) == ("got", f"computed {key}")
            assert tally.items() == [repr(key)] * 2

    trial(test)


def test_a_reset_in_a_worker_reaches_all_hosts(conf: dict[str, Any], tally: Tally) -> None:
    async def test() -> None:
        async with cluster(conf, tally, 3) as nodes:
            for node in nodes:
                await node.workers[0].ask("k")
                version = await node.workers[0].say("reset")
                await connected(nodes)
                assert [await each.workers[0].say("version") for each in nodes] == [version] * 3
            for node in nodes:
                assert await node.workers[0].ask("k") == ("got", "computed 'k'".replace("'", ""))
            assert tally.items() == ["'k'"] * 4

    trial(test)


def test_a_newcomer_has_what_the_others_have(conf: dict[str, Any], tally: Tally) -> None:
    async def test() -> None:
        async with cluster(conf, tally, 3) as nodes:
            await nodes[2].stop()
            await connected(nodes[:2])
            await nodes[0].workers[0].say("reset")
            await connected(nodes[:2])
            for key in range(50):
                await nodes[key % 2].workers[0].ask(key)
            await nodes[2].start()
            await connected(nodes)
            for key in range(50):
                assert await nodes[2].workers[0].ask(key) == ("got", f"computed {key}")
            assert len(tally) == 50

    trial(test)


def test_when_the_computing_worker_or_its_host_is_gone_another_host_computes(
    conf: dict[str, Any], tally: Tally
) -> None:
    async def test() -> None:
        async with cluster(conf, tally, 3) as nodes:
            for number, how in enumerate(["worker", "sidecar"]):
                holder = nodes[number]
                assert await holder.workers[0].ask(how, slow=True) == ("computing", how)
                waiting = [node.workers[0].ask(how) for node in nodes[number + 1 :]]
                await until(lambda number=number: all(len(node.relay._asker) for node in nodes[number:] if node.relay))
                if how == "worker":
                    holder.workers[0].child.kill()
                else:
                    await holder.stop()
                answers = await asyncio.gather(*waiting)
                assert answers == [("got", f"computed {how}")] * len(waiting)
            assert tally.items() == ["'worker'", "'sidecar'"]

    trial(test)


def test_a_full_arena_on_one_host_harms_nobody(settings: Settings, tally: Tally) -> None:
    async def test() -> None:
        async with cluster(settings(version=1, max_items=20), tally, 3) as nodes:
            for key in range(40):
                answers = [node.workers[0].ask(key) for node in nodes]
                assert await asyncio.gather(*answers) == [("got", f"computed {key}")] * 3

    trial(test)


# ---- all of it at once


def hammer(conn: Connection, settings: dict[str, Any], seed: int) -> dict[str, int]:
    """Asks and resets until told to end. Returns counts; what it says of wrong values is its `wrong`."""
    coopshm.configure(settings)
    coopshm.open("c")
    chance = random.Random(seed)
    counts = {"calls": 0, "computed": 0, "resets": 0, "wrong": 0}
    reset_at = 0
    conn.send("ready")
    while not conn.poll():
        key = chance.randrange(40)

        def fn(key: int = key) -> str:
            counts["computed"] += 1
            return json.dumps([key, time.monotonic_ns()])

        # Nothing that this host returns may be older than a reset that returned on it before the call.
        asked, made = json.loads(coopshm.cached("c", key, fn))
        counts["calls"] += 1
        counts["wrong"] += asked != key or made < reset_at
        if chance.random() < 0.002:
            begun = time.monotonic_ns()
            coopshm.reset("c")
            reset_at = begun
            counts["resets"] += 1
    conn.recv()
    return counts


@pytest.mark.parametrize("seed", range(2))
def test_histories_hold_while_sidecars_and_workers_come_and_go(conf: dict[str, Any], tally: Tally, seed: int) -> None:
    async def test() -> None:
        chance = random.Random(seed)
        children: list[tuple[Node, Child]] = []

        async def add(node: Node) -> None:
            child = await asyncio.to_thread(Child, hammer, node.settings, chance.random())
            assert await asyncio.to_thread(child.receive) == "ready"
            children.append((node, child))

        async with cluster(conf, tally, 3, lease_timeout=1.0) as nodes:
            for node in nodes:
                await add(node)
            for _ in range(12):
                node = chance.choice(nodes)
                event = chance.choice(["sidecar", "worker", "busy"])
                if event == "sidecar":
                    await (node.start() if node.relay is None else node.stop())
                elif event == "worker":
                    _, victim = children.pop(chance.randrange(len(children)))
                    await asyncio.to_thread(victim.kill)
                    await add(node)
                for each in nodes:
                    if each.relay is not None:
                        before = each.relay.status().counters["bytes_sent"]
                        moving = asyncio.get_running_loop().time() + WATCHDOG
                        await until(
                            lambda each=each, before=before, moving=moving: (
                                each.relay is None
                                or each.relay.status().counters["bytes_sent"] > before + 2000
                                or len(each.sees()) < 2
                                or asyncio.get_running_loop().time() > moving
                            )
                        )
            for node in nodes:
                if node.relay is None:
                    await node.start()
            results = []
            for _, child in children:
                child.send("end")
                results.append(await asyncio.to_thread(child.result))
            assert [counts["wrong"] for counts in results] == [0] * len(results), results
            assert all(counts["calls"] for counts in results)
            await connected(nodes)
            before = len(tally)
            answers = [await node.workers[0].ask("end") for node in nodes]
            assert answers == [("got", "computed end")] * 3
            assert len(tally) == before + 1

    trial(test)
