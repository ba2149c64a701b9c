"""The peers relay over real segments: several nodes on this machine, with `coopshm.cached` and `coopshm.reset` in their
workers.

What contract/ tries in every way over hosts in memory is held here end to end.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import pytest

import coopshm
from coopshm.cluster import trust
from tests.cluster.hosting import encoded
from tests.cluster.loops import run
from tests.cluster.nodes import Node, cluster, together
from tests.cluster.peers_world import trusted
from tests.loops import until
from tests.procs import Child, Tally

Settings = dict[str, Any]


# ---- once


@pytest.mark.parametrize("how", [trusted, trust.without], ids=["tls", "without_trust"])
def test_workers_of_all_hosts_compute_each_key_once(
    conf: Settings, tally: Tally, how: Callable[[], trust.Trust]
) -> None:
    async def main() -> None:
        async with cluster(conf, tally, 3, workers=2, how=how()) as nodes:
            for key in range(10):
                answers = [worker.ask(key) for node in nodes for worker in node.workers]
                assert await asyncio.gather(*answers) == [("got", f"computed {key}")] * 6
            assert sorted(tally.items()) == sorted(map(repr, range(10)))

    run(main())


def test_who_follows_a_log_pins_nothing_while_there_is_nothing_to_send(conf: Settings, tally: Tally) -> None:
    async def main() -> None:
        async with cluster(conf, tally, 2) as nodes:
            for node in nodes:
                assert await node.workers[0].ask(node.name) == ("got", f"computed {node.name}")
            infos = [described(node) for node in nodes]
            await until(lambda: [info().entries for info in infos] == [2, 2])
            await until(lambda: [info().pinned_chunks for info in infos] == [0, 0])

    run(main())


def test_a_segment_that_was_destroyed_gets_everything_again(conf: Settings, tally: Tally) -> None:
    """The new one stands where the former one stood, in the first generation again."""

    async def main() -> None:
        async with cluster(conf, tally, 2) as nodes:
            one, two = nodes
            for key in range(10):
                assert await one.workers[0].ask(key) == ("got", f"computed {key}")
            before = two.host.standing()
            assert before is not None
            await until(lambda: two.host.find(before.stamp, encoded(9)) is not None)
            await two.workers[0].say("destroy")
            assert await two.workers[0].say("version") == 1  # makes another one

            def another() -> bool:
                now = two.host.standing()
                return now is not None and now.origin != before.origin

            await until(another)
            after = two.host.standing()
            assert after is not None
            assert (after.stamp, after.generation) == (before.stamp, before.generation)
            await until(lambda: all(two.host.find(after.stamp, encoded(key)) is not None for key in range(10)))
        assert len(tally) == 10

    run(main())


def described(node: Node) -> Callable[[], Any]:
    """Looks at the node's segment."""
    at = node.host._at
    assert at is not None
    return at.segment.segment.describe


# ---- failures, and values that are not cached


@pytest.mark.parametrize("key", ["short", "long " * 100])
def test_what_fails_fails_for_all_and_is_computed_again(key: str, conf: Settings, tally: Tally) -> None:
    async def main() -> None:
        async with cluster(conf, tally, 3) as nodes:
            first = nodes[0].workers[0].ask(key, "fail", slow=True)
            assert await first == ("computing", key)
            others = [node.workers[0].ask(key) for node in nodes[1:]]
            await until(lambda: all(len(node.relay._asker) for node in nodes))
            await until(lambda: any(wish.wanted for wish in nodes[0].relay._asker._wishes.values()))
            await looked(nodes[0])
            nodes[0].workers[0].child.send("go on")
            said = await asyncio.to_thread(nodes[0].workers[0].child.receive)
            expected = ("raised", "FailingError", f"{key} failed")
            assert [said, *await asyncio.gather(*others)] == [expected] * 3
            assert await nodes[1].workers[0].ask(key) == ("got", f"computed {key}")
            assert tally.items() == [repr(key)] * 2

    run(main())


async def looked(node: Node) -> None:
    """Return once the host has looked at its segment twice: what it was asked to do is done by then."""
    at = node.host._at
    assert at is not None
    looks = at.looks
    await until(lambda: at.looks >= looks + 2)


def test_failures_and_uncached_values_are_shared_as_on_one_host(conf: Settings, tally: Tally) -> None:
    async def main() -> None:
        async with cluster(conf, tally, 2) as nodes:
            one, two = nodes
            expected = {"fail": ("raised", "FailingError", "fail failed"), "uncached": ("got", "uncached uncached")}
            for kind, said in expected.items():
                assert await one.workers[0].ask(kind, kind, slow=True) == ("computing", kind)
                waits = two.workers[0].ask(kind, kind)
                await until(lambda kind=kind: encoded(kind) in two.host._leases)
                await until(lambda: described(one)().waiters >= 1)  # its outcome is wanted
                one.workers[0].child.send("go")
                assert await asyncio.to_thread(one.workers[0].child.receive) == said
                assert await waits == said
            assert [described(node)().entries for node in nodes] == [0, 0]
        assert tally.items() == ["'fail'", "'uncached'"]

    run(main())


# ---- resets


def test_a_reset_in_a_worker_reaches_all_hosts(conf: Settings, tally: Tally) -> None:
    async def main() -> None:
        async with cluster(conf, tally, 3) as nodes:
            for node in nodes:
                await node.workers[0].ask("k")
                version = await node.workers[0].say("reset")
                await together(nodes)
                assert [await each.workers[0].say("version") for each in nodes] == [version] * 3
            for node in nodes:
                assert await node.workers[0].ask("k") == ("got", "computed k")
            assert tally.items() == ["'k'"] * 4

    run(main())


def test_a_reset_anywhere_is_a_reset_everywhere(conf: Settings, tally: Tally) -> None:
    """Also when all reset at once."""

    async def main() -> None:
        async with cluster(conf, tally, 3) as nodes:
            workers = [node.workers[0] for node in nodes]
            assert await asyncio.gather(*[w.ask("k") for w in workers]) == [("got", "computed k")] * 3
            assert await workers[1].say("reset") == 2
            await together(nodes)
            assert [await w.say("version") for w in workers] == [2, 2, 2]
            assert await asyncio.gather(*[w.ask("k") for w in workers]) == [("got", "computed k")] * 3
            assert len(tally) == 2
            await asyncio.gather(*[w.say("reset") for w in workers])
            await together(nodes)
            assert len({await w.say("version") for w in workers}) == 1
            assert await asyncio.gather(*[w.ask("k") for w in workers]) == [("got", "computed k")] * 3
        assert len(tally) == 3

    run(main())


# ---- nodes come and go


def test_a_newcomer_has_what_the_others_have(conf: Settings, tally: Tally) -> None:
    async def main() -> None:
        async with cluster(conf, tally, 3) as nodes:
            await nodes[2].stop()
            await together(nodes[:2])
            await nodes[0].workers[0].say("reset")
            await together(nodes[:2])
            for key in range(50):
                await nodes[key % 2].workers[0].ask(key)
            await nodes[2].start()
            await together(nodes)
            for key in range(50):
                assert await nodes[2].workers[0].ask(key) == ("got", f"computed {key}")
            assert len(tally) == 50

    run(main())


def test_a_node_that_comes_back_has_what_the_others_have(conf: Settings, tally: Tally) -> None:
    """And its workers computed for themselves while it was away."""

    async def main() -> None:
        async with cluster(conf, tally, 2) as nodes:
            one, two = nodes
            assert await one.workers[0].ask("before") == ("got", "computed before")
            await two.stop()
            assert await two.workers[0].ask("alone") == ("got", "computed alone")
            assert await one.workers[0].say("reset") == 2
            assert await one.workers[0].ask("after") == ("got", "computed after")
            assert await two.workers[0].say("version") == 1
            await two.start()
            await together(nodes)
            assert await two.workers[0].say("version") == 2
            await until(lambda: two.stamp is not None and two.host.find(two.stamp, encoded("after")) is not None)
            assert await two.workers[0].ask("after") == ("got", "computed after")
            assert len(tally) == 3

    run(main())


def test_when_the_computing_worker_or_its_host_is_gone_another_host_computes(conf: Settings, tally: Tally) -> None:
    async def main() -> None:
        async with cluster(conf, tally, 3) as nodes:
            for number, how in enumerate(["worker", "sidecar"]):
                holder = nodes[number]
                assert await holder.workers[0].ask(how, slow=True) == ("computing", how)
                waiting = [node.workers[0].ask(how) for node in nodes[number + 1 :]]
                await until(lambda number=number: all(len(node.relay._asker) for node in nodes[number:]))
                if how == "worker":
                    holder.workers[0].child.kill()
                else:
                    await holder.stop()
                answers = await asyncio.gather(*waiting)
                assert answers == [("got", f"computed {how}")] * len(waiting)
            assert tally.items() == ["'worker'", "'sidecar'"]

    run(main())


def test_what_a_sidecar_held_for_others_is_computed_when_it_ends(conf: Settings, tally: Tally) -> None:
    """And by its own worker as well, which goes on."""

    async def main() -> None:
        async with cluster(conf, tally, 2) as nodes:
            one, two = nodes
            assert await one.workers[0].ask("k", slow=True) == ("computing", "k")
            waits = two.workers[0].ask("k")
            await until(lambda: encoded("k") in two.host._leases)
            await one.stop()
            assert await waits == ("got", "computed k")
            one.workers[0].child.send("go")
            assert await asyncio.to_thread(one.workers[0].child.receive) == ("got", "computed k")

    run(main())


def test_a_full_arena_on_one_host_harms_nobody(settings: Callable[..., Settings], tally: Tally) -> None:
    async def main() -> None:
        async with cluster(settings(version=1, max_items=20), tally, 3) as nodes:
            for key in range(40):
                answers = [node.workers[0].ask(key) for node in nodes]
                assert await asyncio.gather(*answers) == [("got", f"computed {key}")] * 3

    run(main())


# ---- all of it at once


def hammer(conn: Connection, settings: Settings, seed: int) -> dict[str, int]:
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
def test_histories_hold_while_sidecars_and_workers_come_and_go(conf: Settings, tally: Tally, seed: int) -> None:
    async def main() -> None:
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
                    await (node.stop() if node.running else node.start())
                elif event == "worker":
                    _, victim = children.pop(chance.randrange(len(children)))
                    await asyncio.to_thread(victim.kill)
                    await add(node)
                for each in nodes:
                    if each.running:
                        before = each.relay.status().counters["bytes_sent"]
                        await until(
                            lambda each=each, before=before: (
                                each.relay.status().counters["bytes_sent"] > before + 2000 or len(each.sees()) < 2
                            )
                        )
            for node in nodes:
                if not node.running:
                    await node.start()
            results = []
            for _, child in children:
                child.send("end")
                results.append(await asyncio.to_thread(child.result))
            assert [counts["wrong"] for counts in results] == [0] * len(results), results
            assert all(counts["calls"] for counts in results)
            await together(nodes)
            before = len(tally)
            answers = [await node.workers[0].ask("end") for node in nodes]
            assert answers == [("got", "computed end")] * 3
            assert len(tally) == before + 1

    run(main())
