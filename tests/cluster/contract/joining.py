"""The relay contract: nodes that are new, or come back, get what the others have."""

from __future__ import annotations

import asyncio

import pytest

from coopshm.cluster.relay import NodeState
from tests.cluster.contract.cluster import LONG, SILENCE, Cluster, Fn, Trials, until


class Joining(Trials):
    def test_a_newcomer_copies_while_writes_and_resets_go_on(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            await hosts[0].reset(b"2")
            await cluster.agreed()
            for number in range(600):
                await hosts[number % 3].cached(b"key %d" % number, Fn(number))
            newcomer = cluster.host()

            async def write() -> None:
                for number in range(600, 900):
                    await hosts[number % 3].cached(b"key %d" % number, Fn(number))

            await asyncio.gather(cluster.start(3), write())
            await cluster.agreed()
            assert len(await cluster.same_entries()) == 900
            fn = Fn("another")
            assert await newcomer.cached(b"key 7", fn) == 7
            assert fn.calls == 0

        self.trial(test)

    def test_a_newcomer_that_is_asked_at_once_computes_nothing_that_others_have(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            for number in range(300):
                await hosts[number % 3].cached(b"key %d" % number, Fn(number))
            newcomer = cluster.host()
            await cluster.start(3)
            await cluster.connected()
            fn = Fn("another")
            values = await asyncio.gather(*(newcomer.cached(b"key %d" % number, fn) for number in range(300)))
            assert values == list(range(300))
            assert fn.calls == 0

        self.trial(test)

    def test_a_newcomer_gets_what_only_nodes_that_are_gone_have_computed(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            for number in range(50):
                await hosts[0].cached(b"key %d" % number, Fn(number))
            await cluster.same_entries()
            await cluster.stop(0)
            cluster.host()
            await cluster.start(3)
            await cluster.connected(1, 2, 3)
            await cluster.same_entries(1, 2, 3)

        self.trial(test)

    @pytest.mark.parametrize("how", ["stopped", "cut", "drop"])
    def test_when_the_node_that_is_copied_from_goes_another_one_is(self, how: str) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            for number in range(400):
                await hosts[number % 3].cached(b"key %d" % number, Fn("x" * 10_000))
            await cluster.same_entries()
            newcomer = cluster.host()
            cluster.isolate(3, "slow")
            await cluster.start(3)
            await until(lambda: newcomer.stored())
            assert len(newcomer.stored()) < 400
            # Nodes are caught up with in the order of their names.
            if how == "stopped":
                await cluster.stop(0)
            else:
                cluster.isolate(0, how)
            cluster.isolate(3, "")
            await cluster.same_entries(1, 2, 3)

        self.trial(test, silence=SILENCE if how == "drop" else LONG)

    def test_a_node_without_the_cache_is_passed_over(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = [cluster.host() for _ in range(3)]
            hosts[0].here = False
            await cluster.start()
            await cluster.connected()
            await cluster.agreed(1, 2)
            assert hosts[1].acknowledgements["n0"][1] is NodeState.ABSENT
            for number in range(30):
                fn = Fn(number)
                await asyncio.gather(*(host.cached(b"key %d" % number, fn) for host in hosts[1:]))
                assert fn.calls == 1
            await cluster.same_entries(1, 2)
            stamp = await hosts[1].reset(b"2")
            await cluster.agreed(1, 2)
            await hosts[1].cached(b"k", Fn("new"))
            hosts[0].here = True  # an app has come
            relay = hosts[0].relay
            assert relay is not None
            relay.moved("c")
            assert await cluster.agreed() == stamp
            await cluster.same_entries()
            hosts[2].vanish()
            await until(lambda: hosts[1].acknowledgements["n2"][1] is NodeState.ABSENT)

        self.trial(test)

    def test_a_cache_that_starts_cold_is_filled_again(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            for number in range(100):
                await hosts[number % 3].cached(b"key %d" % number, Fn(number))
            await cluster.same_entries()
            hosts[1].start_cold()
            assert hosts[1].stored() == set()
            assert len(await cluster.same_entries()) == 103

        self.trial(test)

    def test_a_restarted_sidecar_goes_on(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            for number in range(100):
                await hosts[number % 3].cached(b"key %d" % number, Fn(number))
            await cluster.stop(0)
            for number in range(100, 150):  # each side by itself
                await hosts[number % 2].cached(b"key %d" % number, Fn(number))
            await cluster.start(0)
            await cluster.connected()
            assert len(await cluster.same_entries()) == 153
            await hosts[0].reset()
            await cluster.agreed()

        self.trial(test)

    def test_stopping_hands_on_what_is_there(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            for number in range(500):
                await hosts[0].cached(b"key %d" % number, Fn("x" * 1000))
            await cluster.stop(0, drain=LONG)
            await until(lambda: len(hosts[1].stored()) == len(hosts[2].stored()) == 503)

        self.trial(test)
