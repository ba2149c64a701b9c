"""Following each other's logs (coopshm.cluster.logs) when something is in the way: what one host stores, all come to
have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from coopshm.cluster import logs
from coopshm.cluster.peers import Peers
from coopshm.cluster.relay import Batch, Delivered, Entry, Kind
from tests.cluster.contract import Cluster, Fn, until
from tests.cluster.loops import run
from tests.cluster.memory import FnError
from tests.cluster.peers_world import PeersCluster, peer, trusted


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again after a pause is so at the next tick or the one after it."""
    monkeypatch.setattr(logs, "AGAIN_SECONDS", 0.001)
    monkeypatch.setattr(logs, "AGAIN_SECONDS_MAX", 0.01)


def trial(test: Callable[[PeersCluster], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = PeersCluster(0.5, trusted())  # so that there are ten ticks a second
        try:
            await test(cluster)
            cluster.check()
        finally:
            await cluster.close()

    run(main())


def received(relay: Peers) -> int:
    return relay.status().counters["entries_received"]


async def nothing_missed(cluster: Cluster) -> None:
    """Return once each node has everything of each other one, and knows it."""
    await cluster.same_entries()
    for relay in cluster.relays:
        assert isinstance(relay, Peers)
        await until(lambda relay=relay: relay._following.behind("c") == set())


def test_what_comes_while_the_lock_is_not_to_be_had_is_taken_later() -> None:
    async def test(cluster: PeersCluster) -> None:
        hosts = await cluster.ready(2)
        before = received(peer(cluster, 1))
        hosts[1].locked = True
        for number in range(5):
            await hosts[0].cached(b"key %d" % number, Fn(number))
        await until(lambda: received(peer(cluster, 1)) >= before + 5 + 5)  # and has been tried once more
        assert not any(b"key %d" % number in hosts[1].stored() for number in range(5))
        assert peer(cluster, 1)._following.behind("c") == {"n0"}
        hosts[1].locked = False
        await nothing_missed(cluster)

    trial(test)


def test_what_comes_while_a_worker_computes_the_same_is_taken_when_that_fails() -> None:
    async def test(cluster: PeersCluster) -> None:
        hosts = await cluster.ready(2)
        failing, before = Fn(FnError("here"), opened=False), received(peer(cluster, 1))
        hosts[1].relay = None  # a worker that did not wait for the cluster
        asked = asyncio.ensure_future(hosts[1].cached(b"k", failing))
        await failing.called()
        hosts[1].relay = peer(cluster, 1)
        await hosts[0].cached(b"k", Fn("there"))
        await until(lambda: received(peer(cluster, 1)) > before)
        failing.open.set()
        with pytest.raises(FnError):
            await asked
        await nothing_missed(cluster)
        assert await hosts[1].cached(b"k", failing) == "there"

    trial(test)


def test_what_comes_while_there_is_no_memory_for_it_is_taken_later() -> None:
    async def test(cluster: PeersCluster) -> None:
        hosts = await cluster.ready(2)
        budget = peer(cluster, 1)._mesh.budget
        budget.used += budget.total
        await hosts[0].cached(b"long", Fn("x" * 100_000))
        await hosts[0].cached(b"short", Fn("x"))
        await until(lambda: budget.dropped >= 2)
        assert b"long" not in hosts[1].stored()
        budget.used -= budget.total
        await nothing_missed(cluster)

    trial(test)


def test_what_there_is_no_room_for_is_not_tried_again() -> None:
    async def test(cluster: PeersCluster) -> None:
        hosts = await cluster.ready(2)
        hosts[1].room = 0
        await hosts[0].cached(b"k", Fn())
        relay = peer(cluster, 1)
        await until(lambda: relay.status().counters["entries_without_room"] == 1)
        assert relay._following.behind("c") == set()
        assert not any(follow.missed for follow in relay._following._follows.values())

    trial(test)


def test_a_segment_that_is_made_again_gets_everything_again() -> None:
    """It stands where the former one stood, in a generation of the same number."""

    async def test(cluster: PeersCluster) -> None:
        hosts = await cluster.ready(3)
        for number in range(20):
            await hosts[number % 3].cached(b"key %d" % number, Fn(number))
        await cluster.same_entries()
        assert hosts[1].generation == 1
        hosts[1].make_again()
        assert hosts[1].stored() == set()
        assert len(await cluster.same_entries()) == 23

    trial(test)


def test_a_log_that_could_not_be_sent_is_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    async def test(cluster: PeersCluster) -> None:
        hosts = await cluster.ready(2)
        read, failures = hosts[0].read, iter([RuntimeError("once"), RuntimeError("twice")])

        async def fails(*args: Any) -> Batch:
            for failure in failures:
                raise failure
            return await read(*args)

        hosts[0].read = fails  # type: ignore[method-assign]
        await hosts[0].cached(b"k", Fn())
        await nothing_missed(cluster)

    with caplog.at_level(logging.ERROR, "coopshm.cluster"):
        trial(test)
    assert [record.getMessage() for record in caplog.records] == [
        "the log of cache 'c' cannot be sent to n1: RuntimeError('once')",
        "the log of cache 'c' cannot be sent to n1: RuntimeError('twice')",
    ]


def test_an_entry_that_breaks_its_delivery_keeps_none_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def test(cluster: PeersCluster) -> None:
        hosts = await cluster.ready(3)
        deliver, failures = hosts[2].deliver, iter([RuntimeError("once")])

        async def fails(*args: Any) -> Delivered:
            for failure in failures:
                raise failure
            return await deliver(*args)

        hosts[2].deliver = fails  # type: ignore[method-assign]
        await hosts[0].cached(b"k", Fn())
        await hosts[1].cached(b"l", Fn())
        await nothing_missed(cluster)

    with caplog.at_level(logging.ERROR, "coopshm.cluster"):
        trial(test)
    assert [record.getMessage() for record in caplog.records] == [
        "an entry of cache 'c' could not be stored: RuntimeError('once')"
    ]


def test_a_node_that_does_not_send_its_log_keeps_nobody_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SILENT_SECONDS", 0.05)

    async def test(cluster: PeersCluster) -> None:
        hosts = await cluster.ready(2)
        await hosts[1].cached(b"k", Fn())
        await cluster.same_entries()
        read, goes_on = hosts[0].read, asyncio.Event()

        async def hangs(*args: Any) -> Batch:
            await goes_on.wait()
            return await read(*args)

        hosts[0].read = hangs  # type: ignore[method-assign]
        newcomer = cluster.host()
        await cluster.start(2)
        await until(lambda: b"k" in newcomer.stored())
        goes_on.set()
        await nothing_missed(cluster)

    trial(test)


def test_what_there_was_no_room_for_is_no_answer_to_who_has_asked_since() -> None:
    """He waits for somebody else's computation, and would for ever."""

    async def test(cluster: PeersCluster) -> None:
        hosts = await cluster.ready(2)
        fn = Fn(FnError("failed"), opened=False)
        asked = asyncio.ensure_future(hosts[0].cached(b"k", fn))
        await fn.called()
        waits = asyncio.ensure_future(hosts[1].cached(b"k", fn))
        await until(lambda: hosts[1].flight(b"k").held)
        late = Entry(b"k", b"k", 1, Kind.VALUE, b"")  # came before he had asked, and was refused
        peer(cluster, 1)._delivered("c", hosts[1].stamp, late, Delivered.FULL)
        fn.open.set()
        results = await asyncio.gather(asked, waits, return_exceptions=True)
        assert [str(result) for result in results] == ["failed", "failed"]
        assert fn.calls == 1

    trial(test)
