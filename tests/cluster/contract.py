"""The relay contract: what any relay must do for any host. A test class for a relay inherits from `RelayContract` and
gives it a `cluster_of`, which makes clusters of its kind (see test_peers.py).

Everything happens over real sockets. Tests wait for conditions, not for time; `loops.WATCHDOG` ends what hangs.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from coopshm.cluster.relay import NodeState, Relay, Stamp
from tests.cluster.loops import run
from tests.cluster.memory import FnError, MemoryHost

#: Seconds. Long where a test must not come to it, short where it is about it.
LONG = 50.0
SHORT = 0.3


async def until(condition: Callable[[], object]) -> None:
    """Return once the condition holds."""
    while not condition():
        await asyncio.sleep(0.002)


class Fn:
    """A computation under a test's control, which counts how often it is called, on whatever host."""

    def __init__(self, result: object = "value", opened: bool = True) -> None:
        self.result = result
        self.calls = 0
        self.open = asyncio.Event()
        if opened:
            self.open.set()

    async def __call__(self) -> object:
        self.calls += 1
        await self.open.wait()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    async def called(self, times: int = 1) -> None:
        await until(lambda: self.calls >= times)


class Cluster(ABC):
    """Nodes, each with one cache `c`, that one relay each connects."""

    def __init__(self, lease_timeout: float) -> None:
        self.lease_timeout = lease_timeout
        self.hosts: list[MemoryHost] = []
        self.relays: list[Relay | None] = []

    @abstractmethod
    async def make_relay(self, index: int) -> Relay:
        """A relay for the host of that number, not started."""

    @abstractmethod
    def isolate(self, index: int, how: str) -> None:
        """Cut a node off from all others: "cut" (connections end, and new ones are refused), "drop" (nothing gets
        through, and nobody is told), "deaf" (nothing reaches it), "mute" (nothing comes from it), "slow", or "" (as it
        should be)."""

    @abstractmethod
    async def close(self) -> None: ...

    def host(self, **options: Any) -> MemoryHost:
        self.hosts.append(MemoryHost(f"n{len(self.hosts)}", self.lease_timeout, **options))
        self.relays.append(None)
        return self.hosts[-1]

    async def start(self, *indices: int) -> None:
        """Start the sidecars of these hosts, of all by default."""
        for index in indices or range(len(self.hosts)):
            relay = await self.make_relay(index)
            self.relays[index] = relay
            self.hosts[index].relay = relay
            await relay.start({"c": self.hosts[index]})

    async def stop(self, index: int, drain: float = 0.0) -> None:
        """End a sidecar; its host goes on without."""
        relay, self.relays[index] = self.relays[index], None
        assert relay is not None
        self.hosts[index].sidecar_died()
        await relay.stop(drain)

    def sees(self, index: int) -> set[str]:
        """The nodes that this one is connected to."""
        relay = self.relays[index]
        assert relay is not None
        return {n.name for n in relay.status().nodes if n.connected} - {self.hosts[index].node}

    async def connected(self, *indices: int) -> None:
        """Return once these (all by default) see each other, and no others."""
        indices = indices or tuple(range(len(self.hosts)))
        names = {self.hosts[index].node for index in indices}
        await until(lambda: all(self.sees(index) == names - {self.hosts[index].node} for index in indices))

    async def agreed(self, *indices: int) -> Stamp:
        """Return the one stamp of these (all by default), once they have one, and know of each other that they do."""
        hosts = [self.hosts[index] for index in indices or range(len(self.hosts))]
        await until(lambda: len({host.stamp for host in hosts}) == 1)
        await until(
            lambda: all(
                host.acknowledgements.get(other.node, (0, 0))[1] is NodeState.LIVE
                for host in hosts
                for other in hosts
                if other is not host
            )
        )
        return hosts[0].stamp

    async def same_entries(self, *indices: int) -> set[bytes]:
        hosts = [self.hosts[index] for index in indices or range(len(self.hosts))]
        await until(lambda: all(host.stored() == hosts[0].stored() for host in hosts))
        return hosts[0].stored()

    async def ready(self, count: int, **options: Any) -> list[MemoryHost]:
        """That many nodes, connected and caught up with each other."""
        for _ in range(count):
            self.host(**options)
        await self.start()
        await self.connected()
        await self.agreed()
        await self.caught_up()
        return self.hosts

    async def caught_up(self) -> None:
        """Return once what one stores reaches the others by itself."""
        for host in [host for host in self.hosts if host.relay is not None]:
            probe = f"probe {next(PROBES)}".encode()
            await host.cached(probe, Fn("probe"))
            live = [o for o in self.hosts if o.relay is not None and o.stamp == host.stamp and o.room > 99]
            await until(
                lambda probe=probe, live=live: all(probe in other.stored() for other in live if other.room > 99)
            )

    def computed(self, key: bytes) -> int:
        return sum(key == each for host in self.hosts for each, _ in host.computations)

    def check(self) -> None:
        for host in self.hosts:
            assert host.faults == []


PROBES = itertools.count()


class RelayContract(ABC):
    """What a relay must do. Every test ends with the check of all histories."""

    @abstractmethod
    def cluster_of(self, lease_timeout: float) -> Cluster: ...

    def trial(self, test: Callable[[Cluster], Awaitable[None]], lease_timeout: float = LONG) -> None:
        async def main() -> None:
            cluster = self.cluster_of(lease_timeout)
            try:
                await test(cluster)
                cluster.check()
            finally:
                await cluster.close()

        run(main())

    # -- once

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

    @pytest.mark.parametrize("how", ["stopped", "cut", "drop"])
    def test_when_the_computing_host_is_gone_another_node_computes(self, how: str) -> None:
        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            stuck, fn = Fn("late", opened=False), Fn("second")
            late = asyncio.ensure_future(hosts[0].cached(b"k", stuck))
            await stuck.called()
            calls = [asyncio.ensure_future(host.cached(b"k", fn)) for host in hosts[1:]]
            await until(lambda: all(host.flight(b"k").held for host in hosts[1:]))
            if how == "stopped":
                await cluster.stop(0)
            else:
                cluster.isolate(0, how)
            assert await asyncio.gather(*calls) == ["second"] * 2
            assert fn.calls == 1
            stuck.open.set()
            assert await late == "late"

        self.trial(test)

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

    # -- writes

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

    # -- resets

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

    # -- joining

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

        self.trial(test)

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

    # -- loss

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

        self.trial(test, lease_timeout=1.0)

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

        self.trial(test)

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

        self.trial(test, lease_timeout=SHORT)
