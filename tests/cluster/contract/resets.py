"""The relay contract: a reset anywhere is a reset everywhere, and nothing older is accepted."""

from __future__ import annotations

import asyncio

from coopshm.cluster.relay import NodeState, Stamp
from tests.cluster.contract.cluster import Cluster, Fn, Trials, until
from tests.cluster.memory import FnError


class Resets(Trials):
    def test_a_reset_anywhere_is_a_reset_everywhere(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            for number, host in enumerate(hosts * 3):
                await host.cached(b"k", Fn(number))
                stamp = await host.reset(b'"%d"' % number)
                assert await cluster.agreed() == stamp
                assert all(
                    other.acknowledgements[host.node][1] is NodeState.LIVE for other in hosts if other is not host
                )
                assert await hosts[(number + 1) % 3].cached(b"k", Fn("new")) == "new"
            assert all(len(host.adopted) == 6 for host in hosts)

        self.trial(test)

    def test_acknowledgements_say_who_has_applied_a_reset(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            gate = asyncio.Event()

            async def slow(stamp: Stamp) -> None:
                await gate.wait()

            hosts[2].on_reset = slow
            stamp = await hosts[0].reset(b"2")
            await until(lambda: hosts[0].acknowledgements["n1"] == (stamp.counter, NodeState.LIVE))
            assert hosts[0].acknowledgements["n2"] == (0, NodeState.BEHIND)
            gate.set()
            await until(lambda: hosts[0].acknowledgements["n2"] == (stamp.counter, NodeState.LIVE))
            await cluster.stop(1)
            await until(lambda: hosts[0].acknowledgements["n1"][1] is NodeState.AWAY)

        self.trial(test)

    def test_resets_at_the_same_time_converge_and_nothing_older_is_accepted(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(5)
            for round_ in range(5):
                await asyncio.gather(*(host.reset(b"%d" % index) for index, host in enumerate(hosts)))
                for number in range(5):
                    await asyncio.gather(*(host.cached(b"%d" % number, Fn(round_)) for host in hosts))
            stamp = await cluster.agreed()
            assert stamp.counter >= 6
            await cluster.same_entries()

        self.trial(test)

    def test_a_failing_callback_leaves_a_host_where_it_is_until_it_works(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            attempts = 0

            async def fails(stamp: Stamp) -> None:
                nonlocal attempts
                attempts += 1
                raise FnError("the source is not there")

            hosts[1].on_reset = fails
            before = hosts[1].stamp
            stamp = await hosts[0].reset(b"2")
            await until(lambda: attempts >= 2)
            await until(lambda: hosts[0].acknowledgements["n1"][1] is NodeState.FAILING)
            assert hosts[1].stamp == before
            assert await hosts[1].cached(b"k", Fn("old")) == "old"  # it goes on by itself
            assert await hosts[2].cached(b"k", Fn("new")) == "new"
            hosts[1].on_reset = None
            assert await cluster.agreed() == stamp
            assert await hosts[1].cached(b"k", Fn("another")) == "new"

        self.trial(test)

    def test_a_node_that_was_away_adopts_when_it_is_back(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            await cluster.stop(2)
            await cluster.connected(0, 1)
            stamp = await hosts[0].reset(b"2")
            await cluster.agreed(0, 1)
            await hosts[0].cached(b"k", Fn("new"))
            assert await hosts[2].cached(b"k", Fn("old")) == "old"
            await cluster.start(2)
            assert await cluster.agreed() == stamp
            assert await hosts[2].cached(b"k", Fn("another")) == "new"

        self.trial(test)

    def test_a_host_that_has_lost_its_segment_is_no_danger(self) -> None:
        """It counts from 0 again, and its next reset must not be taken for the one that it made before."""

        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            await hosts[0].reset(b"2")
            await cluster.agreed()
            await hosts[1].cached(b"k", Fn("old"))
            await cluster.stop(0)
            hosts[0].lose_segment()
            await hosts[0].reset(b"2")
            await cluster.start(0)
            await cluster.agreed()
            assert await hosts[0].cached(b"k", Fn("new")) == "new"

        self.trial(test)
