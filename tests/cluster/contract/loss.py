"""The relay contract: connections that fail, and all of it at once."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.cluster.contract.cluster import SHORT, SILENCE, Cluster, Fn, Trials, until
from tests.cluster.memory import FnError, MemoryHost


class Loss(Trials):
    @pytest.mark.parametrize("how", ["cut", "drop", "deaf", "mute", "slow"])
    def test_after_a_partition_all_have_one_stamp_and_the_same_entries(self, how: str) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            cluster.isolate(2, how)
            if how != "slow":
                await cluster.connected(0, 1)
                await until(lambda: not cluster.sees(2))
            await hosts[2].reset(b'"from the one side"')
            await hosts[0].reset(b'"from the other"')
            await asyncio.gather(*(host.cached(b"k", Fn(host.node)) for host in hosts))
            if how != "slow":
                await cluster.agreed(0, 1)
                assert hosts[0].stamp != hosts[2].stamp
            cluster.isolate(2, "")
            await cluster.connected()
            await cluster.agreed()
            for number in range(20):
                await hosts[number % 3].cached(b"key %d" % number, Fn(number))
            await cluster.same_entries()

        self.trial(test, lease_timeout=1.0, silence=SILENCE)

    def test_a_partition_without_resets_heals_without_one(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            cluster.isolate(2, "cut")
            await cluster.connected(0, 1)
            await until(lambda: not cluster.sees(2))
            for number in range(50):
                await hosts[number % 3].cached(b"key %d" % number, Fn(number))
            cluster.isolate(2, "")
            await cluster.connected()
            assert len(await cluster.same_entries()) == 53
            assert all(host.adopted == [] for host in hosts)

        self.trial(test, silence=SILENCE)

    @pytest.mark.parametrize("seed", range(4))
    def test_everything_at_once(self, seed: int) -> None:
        """Flapping connections, killed workers, sidecars that come and go, cold starts, resets; and callers all the
        time."""

        async def test(cluster: Cluster) -> None:
            chance = random.Random(seed)
            hosts = await cluster.ready(4)
            ended = False
            calls = 0

            async def call(host: MemoryHost) -> None:
                nonlocal calls
                while not ended:
                    fn = Fn("x" * chance.choice([1, 1000, 100_000]))
                    if chance.random() < 0.1:
                        fn.result = FnError("sometimes")
                    try:
                        await host.cached(b"key %d" % chance.randrange(30), fn)
                    except FnError:
                        pass
                    calls += 1
                    await asyncio.sleep(0)

            callers = [asyncio.ensure_future(call(host)) for host in hosts for _ in range(3)]
            for _ in range(25):
                index = chance.randrange(4)
                event = chance.choice(["reset"] * 4 + ["cut", "slow", "sidecar", "kill", "cold", "lost", "", ""])
                if event == "reset":
                    await hosts[index].reset(b"%d" % chance.randrange(3))
                elif event == "kill":
                    hosts[index].kill_workers()
                elif event == "cold":
                    hosts[index].start_cold()
                elif event == "lost" and chance.random() < 0.3:
                    hosts[index].lose_segment()
                elif event == "sidecar":
                    if cluster.relays[index] is not None:
                        await cluster.stop(index)
                    else:
                        await cluster.start(index)
                else:
                    cluster.isolate(index, event if event != "lost" else "")
                goal = calls + chance.randrange(200)
                await until(lambda goal=goal: calls >= goal)
            ended = True
            for index in range(4):
                cluster.isolate(index, "")
                if cluster.relays[index] is None:
                    await cluster.start(index)
            await cluster.connected()
            await asyncio.gather(*callers)
            await cluster.agreed()
            for number in range(30):
                await hosts[number % 4].cached(b"key %d" % number, Fn("end"))
            await cluster.same_entries()
            assert all(host.flights == {} for host in hosts)

        self.trial(test, lease_timeout=SHORT, silence=SILENCE)
