"""The peers relay: the contract over hosts in memory, and what is its own: addresses, names, limits, strangers."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

import pytest

from coopshm.cluster import links, mesh, trust, wire
from coopshm.cluster import messages as m
from coopshm.cluster.leases import Owner
from coopshm.cluster.peers import Peers
from coopshm.cluster.relay import Kind
from coopshm.cluster.wire import Sender
from tests.cluster.contract import SILENCE, Cluster, Fn, RelayContract, until
from tests.cluster.loops import run
from tests.cluster.memory import FnError
from tests.cluster.peers_world import PORT, SECRET, PeersCluster, address, peer, trial, trusted


class TestPeers(RelayContract):
    def cluster_of(self, lease_timeout: float, silence: float) -> PeersCluster:
        return PeersCluster(lease_timeout, trusted(), silence)

    @pytest.mark.parametrize("seed", range(3))
    def test_repeated_and_reordered_messages_are_harmless(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """What tables and stamps say to each other is sent twice, late, and in another order."""
        chance = random.Random(seed)
        send = Sender.send

        def disturbed(self: Sender, message: m.Message) -> None:
            late = isinstance(message, DISTURBED) and chance.random() < 0.5
            if not late or chance.random() < 0.3:
                send(self, message)
            if late:
                asyncio.get_running_loop().call_later(chance.random() / 20, send, self, message)

        monkeypatch.setattr(Sender, "send", disturbed)

        async def test(cluster: Cluster) -> None:
            hosts = await cluster.ready(3)
            for number in range(60):
                fn = Fn(number)
                if number % 3 == 0:
                    fn.result = FnError("sometimes")
                if number % 10 == 0:
                    await hosts[number % 3].reset(b"%d" % number)
                calls = (host.cached(b"key %d" % number, fn) for host in hosts)
                results = await asyncio.gather(*calls, return_exceptions=True)
                assert all(result == number or str(result) == "sometimes" for result in results)
            await cluster.agreed()

        self.trial(test, lease_timeout=1.0)

    def test_a_link_that_loses_one_direction_is_no_link_and_nobody_waits_for_it(self) -> None:
        """Three nodes with three views of who is live, for good: one sees both others, those do not see each other."""

        async def test(cluster: Cluster) -> None:
            assert isinstance(cluster, PeersCluster)
            hosts = await cluster.ready(3)
            cluster.proxies[0, 1].block("there")
            cluster.proxies[1, 0].block("back")
            await until(lambda: [cluster.sees(index) for index in range(3)] == [{"n2"}, {"n2"}, {"n0", "n1"}])
            await until(lambda: all(views_are_old(peer(cluster, index)) for index in range(3)))
            before = sum(host.timeouts for host in hosts)
            for round_ in range(3):
                stamp = await hosts[round_].reset(b"%d" % round_)
                await until(lambda stamp=stamp: [host.stamp for host in hosts] == [stamp] * 3)  # also the way round
                for number in range(100):
                    key, fn = b"key %d" % number, Fn(number)
                    assert await asyncio.gather(*(host.cached(key, fn) for host in hosts)) == [number] * 3
            assert sum(host.timeouts for host in hosts) == before
            cluster.proxies[0, 1].block()
            cluster.proxies[1, 0].block()
            await cluster.connected()
            await cluster.agreed()
            await cluster.same_entries()

        self.trial(test, lease_timeout=6.0, silence=SILENCE)


def views_are_old(relay: Peers) -> bool:
    """Whether it gives out leases although the others see other nodes."""
    return relay._owner._settled(relay._now())


LEASES = (m.View, m.Ask, m.Withdraw, m.Done, m.Fetch, m.Granted, m.Held, m.Alone, m.At, m.Want, m.Finished, m.NotHere)
DISTURBED = (m.Standing, *LEASES)


def errors(cluster: PeersCluster, index: int) -> set[str]:
    return {node.error for node in peer(cluster, index).status().nodes}


def test_a_node_leaves_its_own_address_alone() -> None:
    async def test(cluster: PeersCluster) -> None:
        await cluster.ready(2)
        status = peer(cluster, 0).status()
        assert [(node.name, node.connected) for node in status.nodes] == [("n0", True), ("n1", True)]
        (own,) = [node for node in status.nodes if node.name == "n0"]
        assert own.addresses == [f"{cluster.addresses[0]}:{PORT}"]

    trial(test)


def test_a_node_that_is_down_at_start_is_no_error() -> None:
    async def test(cluster: PeersCluster) -> None:
        cluster.extra = [f"{address()}:{PORT}"]
        host = cluster.host()
        await cluster.start()
        assert await host.cached(b"k", Fn("by itself")) == "by itself"
        await until(lambda: any("failed" in error for error in errors(cluster, 0)))

    trial(test)


async def node_with_two_addresses(cluster: PeersCluster) -> None:
    """Two nodes, of which the first has found the other by two addresses."""
    for _ in range(2):
        cluster.host()
        await cluster._add_node()
    cluster.extra = [f"{cluster.addresses[1]}:{PORT}"]
    await cluster.start()
    await cluster.connected()
    await until(lambda: len([d for d in peer(cluster, 0)._mesh.dials.values() if d.name == "n1"]) == 2)


def test_two_addresses_of_one_node_are_one_node() -> None:
    async def test(cluster: PeersCluster) -> None:
        await node_with_two_addresses(cluster)
        fn = Fn()
        await asyncio.gather(*(host.cached(b"k", fn) for host in cluster.hosts))
        assert fn.calls == 1

    trial(test)


def test_another_address_of_a_node_does_not_end_the_connection_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at again and again, whether it is still the same node's."""
    dialled: list[links.Address] = []
    dial = links.dial

    async def counted(address: links.Address, *args: Any) -> Any:
        dialled.append(address)
        return await dial(address, *args)

    async def test(cluster: PeersCluster) -> None:
        await node_with_two_addresses(cluster)
        ends = [peer(cluster, index)._mesh.peers[name] for index, name in ((0, "n1"), (1, "n0"))]
        before = len(dialled)
        await until(lambda: len(dialled) >= before + 20)
        assert [peer(cluster, index)._mesh.peers[name] for index, name in ((0, "n1"), (1, "n0"))] == ends

    monkeypatch.setattr(mesh, "RESOLVE_SECONDS", 0.02)
    monkeypatch.setattr(mesh, "dial", counted)
    trial(test)


def test_a_name_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(cluster: PeersCluster) -> None:
        for _ in range(3):
            cluster.host()
            cluster.addresses.append(address())

        async def resolve(found: tuple[str, int]) -> list[tuple[str, int]]:
            known = [(each, PORT) for each in cluster.addresses]
            return known if found[0] == "nodes.example" else [found]

        monkeypatch.setattr(mesh, "resolve", resolve)
        cluster.extra = [f"nodes.example:{PORT}"]
        await cluster.start()
        await cluster.connected()

    trial(test)


def test_who_is_dialled_by_a_node_that_it_gave_up_for_now_dials_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a node that comes back is alone for as long as the others have come to wait between two attempts."""
    monkeypatch.setattr(mesh, "REDIAL_SECONDS", 1e6)
    monkeypatch.setattr(mesh, "REDIAL_SECONDS_MAX", 1e6)

    async def test(cluster: PeersCluster) -> None:
        cluster.host()
        cluster.host()
        await cluster.start(0)
        await until(lambda: len([error for error in errors(cluster, 0) if error]) == 1)
        await cluster.start(1)
        await cluster.connected()
        for _ in range(2):  # it is restarted, and not there for a while
            await cluster.stop(1)
            await until(lambda: len([error for error in errors(cluster, 0) if error]) == 1)
            await cluster.start(1)
            await cluster.connected()

    trial(test)


def test_nodes_come_and_go_with_the_configuration() -> None:
    async def test(cluster: PeersCluster) -> None:
        await cluster.ready(3)
        connections = peer(cluster, 0).status().counters["connections"]
        to_second = f"{cluster.proxies[0, 1].address[0]}:{PORT}"
        await peer(cluster, 0).reload([to_second])
        await until(lambda: cluster.sees(0) == {"n1"})
        assert peer(cluster, 0).status().counters["connections"] == connections  # that one has stayed
        await peer(cluster, 0).reload(cluster.nodes(0))
        await cluster.connected()
        with pytest.raises(ValueError, match="no address"):
            await peer(cluster, 0).reload(["nonsense"])
        assert cluster.sees(0) == {"n1", "n2"}

    trial(test)


def test_two_nodes_with_one_name_say_so() -> None:
    async def test(cluster: PeersCluster) -> None:
        for _ in range(3):
            cluster.host()
        cluster.hosts[2].node = "n1"
        await cluster.start()
        await until(
            lambda: any(
                "there is another node named 'n1'" in error for error in errors(cluster, 1) | errors(cluster, 2)
            )
        )
        for index in (1, 2):  # of each other, whichever is connected to the third
            await until(lambda index=index: any("it has this node's name" in error for error in errors(cluster, index)))

    trial(test)


@pytest.mark.parametrize(
    ("hello", "why"),
    [
        (m.Hello(9, "n9", b"i" * 16, "test"), "version 9 of the protocol"),
        (m.Hello(1, "n9", b"i" * 16, "other"), "its namespace is 'other'"),
        (m.Hello(1, "n0", b"i" * 16, "test"), "names must differ"),
    ],
)
def test_nodes_that_do_not_fit_are_told_why(hello: m.Hello, why: str) -> None:
    async def test(cluster: PeersCluster) -> None:
        cluster.host()
        await cluster.start()
        reader, writer = await links.dial((cluster.addresses[0], PORT), trusted())
        writer.write(frame(m.encode(hello)))
        welcome = await wire.read_message(reader)
        assert isinstance(welcome, m.Welcome)
        assert why in welcome.refused
        await until(lambda: peer(cluster, 0).status().counters["refused"] == 1)
        writer.transport.abort()

    trial(test)


def test_without_trust_nodes_meet_on_loopback_and_say_that(caplog: pytest.LogCaptureFixture) -> None:
    async def test(cluster: PeersCluster) -> None:
        await cluster.ready(2)

    with caplog.at_level(logging.WARNING, "coopshm.cluster"):
        trial(test, trust.without())
    assert sum("every user of this host" in record.getMessage() for record in caplog.records) == 2


def test_another_secret_is_no_node() -> None:
    async def test(cluster: PeersCluster) -> None:
        cluster.host()
        cluster.host()
        await cluster.start(0)
        cluster.trust = trust.from_secret(SECRET[::-1], "test")
        await cluster.start(1)
        await until(lambda: any("it has another secret (secret_file)" in error for error in errors(cluster, 1)))
        await until(lambda: peer(cluster, 0).status().counters["refused"] > 0)
        assert cluster.sees(0) == cluster.sees(1) == set()

    trial(test)


def test_values_beyond_the_limit_stay_on_their_host() -> None:
    async def test(cluster: PeersCluster) -> None:
        config = cluster.config
        cluster.config = lambda *args: config(*args)._replace(entry_bytes_max=1000)  # type: ignore[method-assign]
        hosts = await cluster.ready(3)
        fn = Fn("x" * 2000)
        for host in hosts:
            assert await host.cached(b"k", fn) == fn.result
        assert fn.calls == 3
        assert peer(cluster, 0).status().counters["entries_too_large"] > 0
        stuck = Fn(FnError("x" * 2000), opened=False)
        calls = [asyncio.ensure_future(host.cached(b"l", stuck)) for host in hosts]
        await stuck.called()
        flights = [host.flights[b"l"] for host in hosts]
        await until(lambda: sum(flight.held and not flight.granted for flight in flights) == 2)
        stuck.open.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [str(result) for result in results] == ["x" * 2000] * 3

    trial(test)


@pytest.mark.parametrize("what", ["nothing", "other", "huge", "noise", "twice"])
def test_what_is_no_hello_is_refused(what: str) -> None:
    """From somebody who has the secret: a node of another kind, or one that is broken."""

    async def test(cluster: PeersCluster) -> None:
        cluster.host()
        await cluster.start()
        reader, writer = await links.dial((cluster.addresses[0], PORT), trusted())
        said = {
            "nothing": b"",
            "other": frame(m.encode(m.Ping(1))),
            "huge": frame(bytes(5000)),
            "noise": bytes(range(256)),
            "twice": 2 * frame(m.encode(m.Hello(1, "n9", b"i" * 16, "test"))),
        }
        writer.write(said[what])
        if what == "nothing":
            writer.close()
        relay = peer(cluster, 0)
        if what != "twice":
            await until(lambda: relay.status().counters["refused"] == 1)
        try:
            while await reader.read(1000):
                pass
        except OSError:
            pass
        writer.transport.abort()
        await until(lambda: relay._mesh.accepted() == set())

    trial(test, silence=SILENCE)


def frame(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + b"\x01" + data


def test_memory_for_what_is_received_is_given_back() -> None:
    async def test(cluster: PeersCluster) -> None:
        hosts = await cluster.ready(3)
        for number in range(20):
            await hosts[number % 3].cached(b"key %d" % number, Fn("x" * 300_000))
        await cluster.same_entries()
        await until(lambda: [peer(cluster, index)._mesh.budget.used for index in range(3)] == [0, 0, 0])

    trial(test)


def entry_of(key_id: bytes, key: bytes, purpose: int, kind: Kind = Kind.VALUE) -> m.Begin:
    return m.Begin(0, purpose, 1, "c", (0, b"1", ""), key_id, key, 1, kind, 0)


def standing_at(version: bytes, node: str) -> m.Standing:
    return m.Standing(1_000_000, "c", (7, version, node), {}, node, 1)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (entry_of(b"k", b"l", m.Purpose.ANSWER), "another key's name"),
        (entry_of(b"k", b"l", m.Purpose.LOG), "another key's name"),
        (entry_of(b"k", b"", m.Purpose.ANSWER), "another key's name"),
        (entry_of(b"k", b"l", m.Purpose.OUTCOME_DOWN, Kind.FAILURE), "another key's name"),
        (entry_of(b"", b"l" * 1000, m.Purpose.LOG), "another key's name"),
        (standing_at(b"{", "n1#0"), "a version that is none"),
        (standing_at(b"1", "n" * 81), "too long a name"),
    ],
)
def test_what_would_break_a_host_ends_the_connection(
    said: m.Begin | m.Standing, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """From a node: it is believed, but what it says must make sense."""

    async def test(cluster: PeersCluster) -> None:
        hosts = await cluster.ready(2)
        fn = Fn(opened=False)
        calls = [asyncio.ensure_future(hosts[1].cached(b"k", fn))]
        await fn.called()
        calls.append(asyncio.ensure_future(hosts[0].cached(b"k", fn)))
        await until(lambda: hosts[0].flight(b"k").held)
        out = peer(cluster, 1)._mesh.peers["n0"].out
        if isinstance(said, m.Begin):
            out.answer(said, b"{}")
        else:
            out.send(said)
        await until(lambda: why in caplog.text)
        await cluster.connected()
        fn.open.set()
        assert await asyncio.gather(*calls) == ["value", "value"]
        assert hosts[0].stamp == hosts[1].stamp == (0, b"1", "")
        assert b"l" not in hosts[0].stored()

    with caplog.at_level(logging.WARNING, "coopshm.cluster"):
        trial(test)


def test_what_goes_wrong_once_ends_no_task_that_is_needed_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake in the relay, a host that raises what it should not: it is said, and tried again."""
    failures = {"up": 2, "tick": 2, "heard": 1, "adopt": 2}

    def failing(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def fails(*args: Any) -> Any:
            if failures[name] > 0:
                failures[name] -= 1
                raise RuntimeError(name)
            return call(*args)

        return fails

    monkeypatch.setattr(Peers, "up", failing("up", Peers.up))
    monkeypatch.setattr(Owner, "tick", failing("tick", Owner.tick))
    monkeypatch.setattr(Peers, "heard", failing("heard", Peers.heard))

    async def main() -> None:
        cluster = PeersCluster(0.5, trusted())
        try:
            hosts = await cluster.ready(2)
            hosts[0].adopt = failing("adopt", hosts[0].adopt)  # type: ignore[method-assign]
            await hosts[1].reset(b"2")
            await cluster.agreed()
            await until(lambda: not any(failures.values()))
            await cluster.connected()
            await cluster.caught_up()
        finally:
            await cluster.close()

    with caplog.at_level(logging.ERROR, "coopshm.cluster"):
        run(main())
    for name in failures:
        assert f"RuntimeError('{name}')" in caplog.text or f"again: {name}" in caplog.text
