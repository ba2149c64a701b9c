"""A host's segment as a relay sees it (coopshm.cluster.host): its resets and those it adopts, its entries, its life.
The workers are real processes; the test plays the relay."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from typing import Any

import pytest

import coopshm
from coopshm.cluster import attached
from coopshm.cluster.relay import Delivered, Ended, MovedError, NodeState, Origin, ResetFailedError, StaleError, Stamp
from tests.loops import go, until
from tests.procs import WATCHDOG

from .hosting import encoded, entry, hosted, left_clean, stamp_of, worker

# ---- resets


def test_a_reset_by_a_worker_is_told_and_ends_what_is_under_way(conf, tally) -> None:
    async def main() -> None:
        one, two, three = [await worker(conf, tally) for _ in range(3)]
        async with hosted(conf) as (host, heard):
            before = host.standing()
            assert before is not None
            assert before.stamp == Stamp(0, b"1", "")
            assert before.own == 0
            waits = one.ask("held")
            await until(lambda: len(heard.asks) == 1)
            host.hold(before.stamp, encoded("held"))
            asked = two.ask("asked")
            await until(lambda: len(heard.asks) == 2)
            moves = heard.moves
            heard.answer = host.grant
            assert await three.say("reset") == 2
            assert await waits == ("got", "computed held")
            assert await asked == ("got", "computed asked")
            await until(lambda: heard.moves > moves)
            now = host.standing()
            assert now is not None
            assert now.stamp == Stamp(1, b"2", now.origin)
            assert (now.own, now.generation) == (1, before.generation + 1)
            assert now.origin.startswith("node#")
            assert {key for _, key in heard.withdrawals} == {encoded("held"), encoded("asked")}
            assert all(stamp == before.stamp for stamp, _ in heard.withdrawals)
            assert [stamp for stamp, _, _ in heard.asks] == [before.stamp] * 2 + [now.stamp] * 2
            assert await host.deliver(before.stamp, entry("k", "old")) is Delivered.STALE
            with pytest.raises(StaleError):
                await host.read(before.generation, 0, Origin.ALL, 1, 1)
            await host.changed(before.generation, 100)  # comes back

    go(main)


def test_a_reset_of_another_host_is_adopted(settings, tally, tmp_path) -> None:
    told = tmp_path / "told"

    def callback(version: object) -> None:
        told.write_text(repr(version))

    async def main() -> None:
        conf = settings(version=1)
        w = await worker(conf, tally)
        async with hosted(settings(version=1, on_reset=callback)) as (host, heard):
            heard.answer = host.grant
            assert await w.ask("k") == ("got", "computed k")
            before = host.standing()
            theirs = Stamp(5, b'"2026-11"', "web2#0123")
            await host.adopt(theirs, before)
            now = host.standing()
            assert (now.stamp, now.own, now.generation) == (theirs, 0, before.generation + 1)
            assert told.read_text() == "'2026-11'"
            assert await w.say("version") == "2026-11"
            assert await w.ask("k") == ("got", "computed k")
            assert len(tally) == 2
            with pytest.raises(MovedError):
                await host.adopt(Stamp(6, b"3", "web3#1"), before)
            await host.adopt(Stamp(9, b"9", now.origin), now)  # raised by this host itself
            assert host.standing().own == 9
            assert await host.deliver(host.standing().stamp, entry("new", 1)) is Delivered.STORED

    go(main)


def test_nobody_hears_of_what_is_adopted_before_the_relay_does(settings, tally) -> None:
    """Else it would take it for a reset made here, and two hosts could raise over each other for ever."""

    async def main() -> None:
        await worker(settings(version=1), tally)
        async with hosted(settings(version=1)) as (host, heard):
            for counter in range(1, 50):
                before, moves = host.standing(), heard.moves
                theirs = Stamp(counter, b"2" if counter % 2 else b"3", before.origin)
                task = asyncio.create_task(host.adopt(theirs, before))
                while not task.done():
                    assert task.done() or (host.standing(), heard.moves) == (before, moves)
                    await asyncio.sleep(0)
                await task
                assert host.standing().stamp == theirs
                await until(lambda moves=moves: heard.moves == moves + 1)

    go(main)


def test_a_host_may_be_stopped_while_it_adopts(conf, tally, monkeypatch) -> None:
    """Its callback may take long: the thread that runs it has the segment until it is through."""
    begun, go_on, seen = threading.Event(), threading.Event(), []

    def slow(at: Any, *_: Any) -> None:
        begun.set()
        assert go_on.wait(WATCHDOG)
        seen.append(at.stamp())

    monkeypatch.setattr(attached, "_flip", slow)

    async def main() -> None:
        await worker(conf, tally)
        async with hosted(conf) as (host, _):
            standing, at = host.standing(), host._at
            adopting = asyncio.create_task(host.adopt(Stamp(9, b"1", "another#1"), standing))
            await asyncio.to_thread(begun.wait, WATCHDOG)
            adopting.cancel()
        go_on.set()
        await until(lambda: seen == [standing])
        await until(lambda: not at.segment._kept)

    go(main)


def test_a_callback_that_raises_changes_nothing(settings, tally) -> None:
    def callback(version: object) -> None:
        raise OSError("no database")

    async def main() -> None:
        w = await worker(settings(version=1), tally)
        async with hosted(settings(version=1, on_reset=callback)) as (host, _):
            before = host.standing()
            with pytest.raises(ResetFailedError, match="no database") as caught:
                await host.adopt(Stamp(5, b"2", "web2#1"), before)
            assert isinstance(caught.value.__cause__, OSError)
            assert host.standing() == before
            assert await w.say("version") == 1
            assert await w.say("reset") == 2  # the reset lock is free

    go(main)


# ---- entries


def test_the_log_is_read_in_pieces_and_on_from_where_one_was(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            heard.answer = host.grant
            generation = host.standing().generation
            woken = asyncio.create_task(host.changed(generation, 0))
            await asyncio.sleep(0)
            assert not woken.done()
            for n in range(5):
                assert await w.ask(n) == ("got", f"computed {n}")
            await woken
            found, position = [], 0
            while True:
                batch = await host.read(generation, position, Origin.LOCAL, 1, 100)  # one entry at least
                found += [e.key for _, e in batch.entries]
                position = batch.position
                if batch.end:
                    break
                assert len(batch.entries) == 1
            assert found == [encoded(n) for n in range(5)]
            assert len((await host.read(generation, 2, Origin.ALL, 1 << 20, 2)).entries) == 2

    go(main)


def test_what_was_read_is_pinned_until_it_is_dropped(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, _):
            stamp = stamp_of(host)
            assert await host.deliver(stamp, entry("k", b"\x01" * 100_000)) is Delivered.STORED
            ((_, kept),) = (await host.read(host.standing().generation, 0, Origin.ALL, 1, 1)).entries
            await w.say("reset")
            stamp = stamp_of(host)
            n = 0
            while await host.deliver(stamp, entry(n, b"\x02" * 100_000)) is Delivered.STORED:
                n += 1
            assert n > 20
            assert bytes(kept.payload) == b"\x01" * 100_000
            payload = kept.payload
            del kept
        assert bytes(payload) == b"\x01" * 100_000  # also when the host has let go
        del payload
        assert left_clean(conf)

    go(main)


def test_what_was_read_and_is_garbage_is_not_pinned_for_good(conf, tally, monkeypatch) -> None:
    monkeypatch.setattr(attached, "HELD_SECONDS", 0.1)

    async def main() -> None:
        await worker(conf, tally)
        coopshm.configure(conf)
        cache = coopshm.open("c")
        async with hosted(conf) as (host, _):
            assert await host.deliver(stamp_of(host), entry("k", b"\x01" * 100_000)) is Delivered.STORED
            circle: list[object] = [await host.read(host.standing().generation, 0, Origin.ALL, 1, 1)]
            circle.append(circle)
            del circle
            assert cache.stats().pinned_chunks > 0
            await until(lambda: cache.stats().pinned_chunks == 0)

    gc.disable()  # as in a process that makes few objects
    try:
        go(main)
    finally:
        gc.enable()


def test_a_full_arena_keeps_nothing_and_passes_on(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            stamp = stamp_of(host)
            n = 0
            while (done := await host.deliver(stamp, entry(n, b"x" * 400_000))) is Delivered.STORED:
                n += 1
            assert done is Delivered.FULL
            asked = w.ask("k")
            await until(lambda: bool(heard.asks))
            assert await host.deliver(stamp, entry("k", b"y" * 400_000)) is Delivered.PASSED
            assert await asked == ("got", b"y" * 400_000)

    go(main)


def test_a_worker_that_computes_is_not_overtaken(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            heard.answer = host.grant
            assert await w.ask("k", slow=True) == ("computing", "k")
            assert await host.deliver(stamp_of(host), entry("k", "theirs")) is Delivered.JOINED
            w.child.send("go")
            assert await asyncio.to_thread(w.child.receive) == ("got", "computed k")
            await until(lambda: bool(heard.ends))
            assert heard.ends[0][2] is Ended.STORED

    go(main)


# ---- life


def test_a_host_follows_its_segment(conf, tally) -> None:
    async def main() -> None:
        async with hosted(conf) as (host, heard):
            assert host.standing() is None
            assert await host.deliver(Stamp(0, b"1", ""), entry("k", 1)) is Delivered.GONE
            w = await worker(conf, tally)
            await until(lambda: host.standing() is not None)
            first = host.standing().origin
            heard.answer = host.grant
            assert await w.ask("k") == ("got", "computed k")
            await w.say("destroy")
            await until(lambda: host.standing() is None or host.standing().origin != first)
            assert await w.ask("k") == ("got", "computed k")
            await until(lambda: host.standing() is not None and host.standing().origin != first)
            assert heard.moves >= 3
            asks = len(heard.asks)
            assert await w.ask("l") == ("got", "computed l")
            await until(lambda: len(heard.asks) > asks)

    go(main)


def test_there_is_one_sidecar(conf, tally, caplog) -> None:
    async def main() -> None:
        await worker(conf, tally)
        async with hosted(conf) as (one, _), hosted(conf) as (two, _):
            assert one.standing() is not None
            assert two.standing() is None
            assert "has a sidecar already" in caplog.text

    go(main)


def test_a_forked_worker_asks_for_itself(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            heard.answer = host.grant
            coopshm.configure(conf)
            assert await asyncio.to_thread(coopshm.cached, "c", "parent", lambda: 1) == 1
            assert await w.ask("k") == ("got", "computed k")
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    code = 0 if coopshm.cached("c", "child", lambda: 2) == 2 else 1
                finally:
                    os._exit(code)
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            assert status == 0
            assert [key for _, key, _ in heard.asks] == [encoded("parent"), encoded("k"), encoded("child")]

    go(main)


def test_what_is_known_of_other_nodes_is_in_the_segment(conf, tally) -> None:
    async def main() -> None:
        await worker(conf, tally)
        async with hosted(conf) as (host, _):
            coopshm.configure(conf)
            segment = coopshm.open("c")._attachment.segment
            assert segment.peers() == []
            host.acknowledged("web2", 7, NodeState.LIVE)
            host.acknowledged("web3", 0, NodeState.AWAY)
            host.acknowledged("web2", 8, NodeState.LIVE)
            assert [(p.name, p.covers, p.state) for p in segment.peers()] == [("web2", 8, 4), ("web3", 0, 0)]
            assert segment.sidecar() == os.getpid()
        assert segment.peers() == []

    go(main)


def test_nodes_that_are_away_make_room_for_others(conf, tally) -> None:
    """Where each deployment has names of its own, the records were used up by those of the past."""

    async def main() -> None:
        await worker(conf, tally)
        async with hosted(conf) as (host, _):
            coopshm.configure(conf)
            segment = coopshm.open("c")._attachment.segment
            host.acknowledged("stays", 1, NodeState.LIVE)
            for number in range(200):
                host.acknowledged(f"old {number}", 1, NodeState.LIVE)
                host.acknowledged(f"old {number}", 1, NodeState.AWAY)
            host.acknowledged("new", 1, NodeState.LIVE)
            assert {p.name for p in segment.peers() if p.state == NodeState.LIVE} == {"stays", "new"}
            names = [p.name for p in segment.peers()]
            assert len(names) == len(set(names)) == 64
            for number in range(70):  # more than there are records: some are not told of, all others are
                host.acknowledged(f"live {number}", 1, NodeState.LIVE)
            names = [p.name for p in segment.peers() if p.state == NodeState.LIVE]
            assert len(names) == len(set(names)) == 64
            assert {"stays", "new"} < set(names)

    go(main)
