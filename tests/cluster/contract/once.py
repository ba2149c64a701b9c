"""The relay contract: a key is computed once in the cluster, and what is computed reaches all."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from coopshm.cluster.relay import KeyId, Stamp
from tests.cluster.contract.cluster import LONG, SHORT, SILENCE, Cluster, Fn, Trials, until
from tests.cluster.memory import FnError, MemoryHost


class Once(Trials):
    @pytest.mark.parametrize("nodes", [3, 5])
    def test_many_callers_on_all_nodes_one_computation(self, nodes: int) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(nodes)
            for number in range(20):
                key, fn = b"key %d" % number, Fn(number)
                values = await asyncio.gather(*(host.cached(key, fn) for host in hosts for _ in range(5)))
                assert values == [number] * 5 * nodes
                assert fn.calls == 1
            await cluster.same_entries()
            assert sum(host.timeouts for host in hosts) == 0

        self.trial(test)

    def test_large_values_cross_whole(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            values = {b"key %d" % size: "x" * size for size in (0, 10_000, 100_000, 3_000_000)}
            await asyncio.gather(*(hosts[0].cached(key, Fn(value)) for key, value in values.items()))
            await cluster.same_entries()
            for host in hosts:
                for key, value in values.items():
                    assert await host.cached(key, Fn("another")) == value

        self.trial(test)

    def test_a_failure_reaches_waiters_on_all_nodes_and_is_not_kept(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            fn = Fn(FnError("no such thing"), opened=False)
            first = asyncio.ensure_future(hosts[0].cached(b"k", fn))
            await fn.called()
            others = [asyncio.ensure_future(host.cached(b"k", fn)) for host in hosts[1:] for _ in range(3)]
            await until(lambda: all(host.flight(b"k").held for host in hosts[1:]))
            await until(lambda: hosts[0].flight(b"k").wanted)
            fn.open.set()
            results = await asyncio.gather(first, *others, return_exceptions=True)
            assert [str(result) for result in results] == ["no such thing"] * 7
            assert fn.calls == 1
            assert await hosts[1].cached(b"k", Fn("now it works")) == "now it works"

        self.trial(test)

    def test_a_value_that_is_not_stored_reaches_waiters_on_all_nodes(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3, room=100)
            for host in hosts:
                host.room = 0
            fn = Fn("large", opened=False)
            calls = [asyncio.ensure_future(host.cached(b"k", fn)) for host in hosts]
            await fn.called()
            (holder,) = [host for host in hosts if host.flight(b"k").granted]
            await until(lambda: all(host.flight(b"k").held for host in hosts if host is not holder))
            await until(lambda: holder.flight(b"k").wanted)
            fn.open.set()
            assert await asyncio.gather(*calls) == ["large"] * 3
            assert fn.calls == 1
            assert not any(b"k" in host.stored() for host in hosts)

        self.trial(test)

    def test_a_full_arena_gets_what_it_waits_for_from_where_it_is(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            for host in hosts[1:]:
                host.room = 0
            for number in range(10):
                key, fn = b"key %d" % number, Fn(number)
                assert await hosts[0].cached(key, fn) == number
                assert await asyncio.gather(*(host.cached(key, fn) for host in hosts)) == [number] * 3
                assert fn.calls == 1

        self.trial(test)

    def test_when_the_computing_worker_is_killed_another_node_computes(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            stuck, fn = Fn(opened=False), Fn("second")
            dead = asyncio.ensure_future(hosts[0].cached(b"k", stuck))
            await stuck.called()
            calls = [asyncio.ensure_future(host.cached(b"k", fn)) for host in hosts[1:]]
            await until(lambda: all(host.flight(b"k").held for host in hosts[1:]))
            hosts[0].kill_workers()
            dead.cancel()
            assert await asyncio.gather(*calls) == ["second"] * 2
            assert fn.calls == 1

        self.trial(test)

    def test_a_lease_that_comes_too_late_is_given_back(self) -> None:
        """Whoever asked for it is gone, or has the value, and the host has not said so yet."""

        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            for host in hosts:  # one of them is the owner node
                grant, granted = host.grant, asyncio.Event()

                def too_late(
                    stamp: Stamp,
                    key_id: KeyId,
                    host: MemoryHost = host,
                    grant: Callable[[Stamp, KeyId], None] = grant,
                    granted: asyncio.Event = granted,
                ) -> None:
                    host.forget(key_id)
                    grant(stamp, key_id)
                    granted.set()

                host.grant = too_late  # type: ignore[method-assign]
                key = host.node.encode()
                gone = asyncio.ensure_future(host.cached(key, Fn()))
                await granted.wait()
                gone.cancel()
                del host.grant
                others = [other for other in hosts if other is not host]
                assert await asyncio.gather(*(other.cached(key, Fn("second")) for other in others)) == ["second"] * 2
                assert cluster.computed(key) == 1
                assert await host.cached(key, Fn("third")) == "second"

        self.trial(test)

    @pytest.mark.parametrize("how", ["stopped", "cut", "drop"])
    def test_when_the_computing_host_is_gone_another_node_computes(self, how: str) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            stuck, fn = Fn("late", opened=False), Fn("second")
            late = asyncio.ensure_future(hosts[0].cached(b"k", stuck))
            await stuck.called()
            calls = [asyncio.ensure_future(host.cached(b"k", fn)) for host in hosts[1:]]
            await until(lambda: all(host.flight(b"k").held for host in hosts[1:]))
            others = cluster.links(1, 2)
            if how == "stopped":
                await cluster.stop(0)
            else:
                cluster.isolate(0, how)
            assert await asyncio.gather(*calls) == ["second"] * 2
            assert cluster.once(fn, others, 1, 2)
            stuck.open.set()
            assert await late == "late"

        self.trial(test, silence=LONG if how == "stopped" else SILENCE)

    def test_without_sidecar_a_host_computes_for_itself_at_once(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            fn = Fn(opened=False)
            call = asyncio.ensure_future(hosts[1].cached(b"k", fn))
            await fn.called()
            other = Fn("mine")
            waiting = asyncio.ensure_future(hosts[0].cached(b"k", other))
            await until(lambda: hosts[0].flight(b"k").held)
            await cluster.stop(0)
            assert await waiting == "mine"
            assert await hosts[0].cached(b"l", other) == "mine"
            fn.open.set()
            await call

        self.trial(test)

    def test_an_owner_node_that_does_not_answer_costs_the_lease_timeout_once(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            cluster.isolate(0, "drop")
            fn = Fn()
            await asyncio.gather(*(hosts[1].cached(b"key %d" % number, fn) for number in range(20)))
            assert fn.calls == 20

        self.trial(test, lease_timeout=SHORT)

    def test_computations_that_wait_for_each_other_across_hosts_end(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            inner = Fn("inner")

            async def first() -> object:
                return await hosts[0].cached(b"y", inner, nested=True)

            async def second() -> object:
                return await hosts[1].cached(b"x", inner, nested=True)

            # Both are granted before either asks for the other one's key: that is how such a cycle comes about.
            both = asyncio.Event()
            started = itertools.count(1)

            def gate(fn: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
                async def gated() -> object:
                    if next(started) == 2:
                        both.set()
                    await both.wait()
                    return await fn()

                return gated

            values = await asyncio.gather(hosts[0].cached(b"x", gate(first)), hosts[1].cached(b"y", gate(second)))
            assert values == ["inner"] * 2

        self.trial(test, lease_timeout=SHORT)

    def test_what_is_stored_reaches_all_and_only_once_by_the_log(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            for number in range(300):
                await hosts[number % 3].cached(b"key %d" % number, Fn(number))
            assert len(await cluster.same_entries()) == 300 + 3

        self.trial(test)

    def test_a_full_node_harms_nobody(self) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            hosts[2].room = 50
            await asyncio.gather(*(hosts[0].cached(b"key %d" % number, Fn(number)) for number in range(200)))
            await cluster.same_entries(0, 1)
            relay = hosts[2].relay
            assert relay is not None
            await until(lambda: relay.status().counters["entries_without_room"] > 0)
            assert len(hosts[2].stored()) == 50
            assert await hosts[2].cached(b"key 199", Fn("another")) == 199

        self.trial(test)
