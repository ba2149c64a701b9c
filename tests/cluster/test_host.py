"""A cache on one host as a relay sees it (coopshm.cluster.host), with workers in real processes."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

import coopshm
from coopshm.cluster import attached
from coopshm.cluster.relay import (
    Delivered,
    Ended,
    Entry,
    Kind,
    MovedError,
    NodeState,
    Origin,
    ResetFailedError,
    StaleError,
    Stamp,
)
from coopshm.cluster.segment import key_id_of
from coopshm.failures import encode_failure
from coopshm.values import codec
from tests.conftest import clean
from tests.loops import go, until
from tests.procs import WATCHDOG

from .hosting import LONG, encoded, hosted, sidecar, worker


@pytest.fixture
def conf(settings: Any) -> dict[str, Any]:
    return settings(version=1)  # type: ignore[no-any-return]


def entry(key: object, value: object) -> Entry:
    format, pieces = codec("pickle").encode(value)
    data = encoded(key)
    return Entry(key_id_of(data), data, format, Kind.VALUE, b"".join(pieces))


def outcome(key: object, kind: Kind, format: int, payload: bytes) -> Entry:
    return Entry(encoded(key), b"", format, kind, payload)


def stamp_of(host: Any) -> Stamp:
    standing = host.standing()
    assert standing is not None
    return standing.stamp  # type: ignore[no-any-return]


# ---- asking


def test_who_is_granted_computes_and_its_entry_is_in_the_log(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            heard.answer = host.grant
            assert await w.ask("k") == ("got", "computed k")
            await until(lambda: bool(heard.ends))
            stamp = stamp_of(host)
            assert heard.asks == [(stamp, encoded("k"), False)]
            assert heard.ends == [(stamp, encoded("k"), Ended.STORED)]
            batch = await host.read(host.standing().generation, 0, Origin.LOCAL, 1 << 20, 100)
            assert [(position, e.key) for position, e in batch.entries] == [(0, encoded("k"))]
            assert codec("pickle").decode(batch.entries[0][1].format, batch.entries[0][1].payload) == "computed k"
            assert (batch.position, batch.end) == (1, True)
            found = host.find(stamp, encoded("k"))
            assert found is not None
            assert found.key == encoded("k")
            del batch, found
            assert await w.ask("k") == ("got", "computed k")  # a hit asks nobody
            assert len(heard.asks) == 1
        assert len(tally) == 1

    go(main)


def test_what_another_host_has_computed_is_stored_and_marked(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            asked = w.ask("k")
            await until(lambda: bool(heard.asks))
            stamp = stamp_of(host)
            host.hold(stamp, encoded("k"))
            assert await host.deliver(stamp, entry("k", "from elsewhere")) is Delivered.STORED
            assert await asked == ("got", "from elsewhere")
            assert await host.deliver(stamp, entry("k", "from elsewhere")) is Delivered.KNOWN
            assert await host.deliver(stamp, entry("unasked", "too")) is Delivered.STORED
            assert await w.ask("unasked") == ("got", "too")
            generation = host.standing().generation
            assert (await host.read(generation, 0, Origin.LOCAL, 1 << 20, 100)).entries == []
            assert len((await host.read(generation, 0, Origin.ALL, 1 << 20, 100)).entries) == 2
            assert heard.ends == []
            assert heard.withdrawals == []
        assert len(tally) == 0

    go(main)


def test_failures_and_uncached_values_of_other_hosts_reach_those_who_wait(conf, tally) -> None:
    async def main() -> None:
        workers = [await worker(conf, tally) for _ in range(2)]
        async with hosted(conf) as (host, heard):
            stamp = stamp_of(host)
            failed = outcome("f", Kind.FAILURE, 0, encode_failure(KeyError("elsewhere"), "raised on web2"))
            assert await host.deliver(stamp, failed) is Delivered.UNWANTED
            asked = [w.ask("f") for w in workers]
            await until(lambda: bool(heard.asks))
            await until(lambda: coopshm_waiters(conf) == 2)
            assert await host.deliver(stamp, failed) is Delivered.PASSED
            for answer in await asyncio.gather(*asked):
                assert answer[:2] == ("raised", "KeyError")
            value = entry("u", "for now")
            asked = [workers[0].ask("u")]
            await until(lambda: len(heard.asks) == 2)
            host.hold(stamp, encoded("u"))
            uncached = outcome("u", Kind.UNCACHED, value.format, bytes(value.payload))
            assert await host.deliver(stamp, uncached) is Delivered.PASSED
            assert await asked[0] == ("got", "for now")
            assert host.find(stamp, encoded("u")) is None
        assert len(tally) == 0

    go(main)


def coopshm_waiters(conf: dict[str, Any]) -> int:
    coopshm.configure(conf)
    return coopshm.open("c").stats().waiters


def test_an_outcome_that_others_wait_for_is_handed_on(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):

            def answer(stamp: Stamp, key_id: bytes) -> None:
                host.grant(stamp, key_id)
                host.want(stamp, key_id)

            heard.answer = answer
            for kind, wanted in (("fail", Kind.FAILURE), ("uncached", Kind.UNCACHED)):
                heard.ends.clear()
                asked = w.ask("k", kind, slow=True)
                assert await asked == ("computing", "k")
                await until(lambda: coopshm_waiters(conf) == 1)  # the sidecar itself
                w.child.send("go")
                assert (await asyncio.to_thread(w.child.receive))[0] in ("raised", "got")
                await until(lambda: bool(heard.ends))
                ((_, key_id, found),) = heard.ends
                assert key_id == encoded("k")
                assert isinstance(found, Entry)
                assert found.kind is wanted
        assert clean_later(conf)

    go(main)


def test_what_is_wanted_is_waited_for_at_once(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            heard.answer = host.grant
            assert await w.ask("k", "fail", slow=True) == ("computing", "k")
            at = host._at
            assert at is not None
            at._ends = True  # it is not rung, nor does it look by itself
            await asyncio.to_thread(at._thread.join)
            await asyncio.sleep(0)  # what had been asked for by then
            assert coopshm_waiters(conf) == 0
            host.want(stamp_of(host), encoded("k"))
            await asyncio.sleep(0)
            assert coopshm_waiters(conf) == 1
            w.child.send("go")
            assert (await asyncio.to_thread(w.child.receive))[0] == "raised"

    go(main)


def test_what_nobody_wanted_is_only_over(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            heard.answer = host.grant
            assert (await w.ask("k", "fail"))[:2] == ("raised", "FailingError")
            await until(lambda: bool(heard.ends))
            assert [end[2] for end in heard.ends] == [Ended.ABANDONED]

    go(main)


def test_a_computation_within_a_computation_is_told_of(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            heard.answer = host.grant
            assert await w.ask("k", "nested") == ("got", ("outer", "computed ('inner', 'k')"))
            assert [(key_id, nested) for _, key_id, nested in heard.asks] == [
                (encoded("k"), False),
                (encoded(("inner", "k")), True),
            ]
        assert len(tally) == 2

    go(main)


def test_keys_of_any_length_are_asked_for_and_found(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            heard.answer = host.grant
            for size in (1, 95, 96, 97, 1000, 60000):
                key = "x" * size
                assert await w.ask(key) == ("got", f"computed {key}")
                key_id = key_id_of(encoded(key))
                assert heard.asks[-1][1] == key_id
                assert len(key_id) <= 96
                found = host.find(stamp_of(host), key_id)
                assert found is not None
                assert (found.key, found.key_id) == (encoded(key), key_id)
            assert host.find(stamp_of(host), key_id_of(b"s" + b"y" * 500)) is None

    go(main)


def test_many_keys_at_once(conf, tally) -> None:
    async def main() -> None:
        workers = [await worker(conf, tally) for _ in range(4)]
        async with hosted(conf) as (host, heard):
            heard.answer = host.grant
            for n in range(50):
                assert await asyncio.gather(*[w.ask(n) for w in workers]) == [("got", f"computed {n}")] * 4
            await until(lambda: len(heard.ends) == 50)
            assert sorted(key for _, key, _ in heard.asks) == sorted(encoded(n) for n in range(50))
        assert len(tally) == 50
        assert clean_later(conf)

    go(main)


def clean_later(conf: dict[str, Any]) -> bool:
    coopshm.configure(conf)
    return clean(coopshm.open("c"))


# ---- a sidecar that does not answer


def test_each_grant_has_an_end_also_one_that_comes_too_late(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            stamp = stamp_of(host)
            asked = w.ask("k")
            await until(lambda: bool(heard.asks))
            assert await host.deliver(stamp, entry("k", "from elsewhere")) is Delivered.STORED
            assert await asked == ("got", "from elsewhere")
            for key in ("k", "never asked for"):
                host.grant(stamp, encoded(key))
            await until(lambda: len(heard.ends) == 2)
            assert heard.ends == [
                (stamp, encoded("k"), Ended.STORED),
                (stamp, encoded("never asked for"), Ended.ABANDONED),
            ]
        assert len(tally) == 0

    go(main)


def test_what_is_granted_to_a_worker_that_waits_no_more_has_the_end_of_its_computation(conf, tally) -> None:
    async def main() -> None:
        waits, hurries = await worker(conf, tally), await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            at = host._at
            assert at is not None
            asked = waits.ask("k")
            await until(lambda: bool(heard.asks))
            at.segment.grant = lambda *_: False  # it comes between the taking over and the next look
            host.grant(stamp_of(host), encoded("k"))
            assert await hurries.ask("k", slow=True, timeout=0) == ("computing", "k")
            await until(lambda: bool(heard.ends))
            assert heard.ends == [(stamp_of(host), encoded("k"), Ended.ABANDONED)]
            assert heard.withdrawals == []
            hurries.child.send("go on")
            assert await asyncio.to_thread(hurries.child.receive) == ("got", "computed k")
            assert await asked == ("got", "computed k")

    go(main)


def test_without_an_answer_the_worker_computes(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf, lease_timeout=0.3) as (host, heard):
            assert await w.ask("k") == ("got", "computed k")
            if heard.asks:  # else this loop was not seen to run in time, and not even asked
                await until(lambda: bool(heard.withdrawals))
            host.grant(stamp_of(host), encoded("k"))  # too late, and harmless
            assert heard.ends == []

    go(main)


def test_who_will_not_wait_computes_at_once(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            assert await w.ask("k", timeout=0) == ("got", "computed k")
            asked = w.ask("l", timeout=0.5)
            await until(lambda: encoded("l") in [key for _, key, _ in heard.asks])  # whether "k" was seen or not
            host.hold(stamp_of(host), encoded("l"))
            assert (await asked)[:2] == ("raised", "WaitTimeout")  # somebody does compute

    go(main)


def test_a_task_that_will_not_wait_computes_while_another_one_waits_for_the_answer(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf):
            assert await w.ask("k", "tasks") == ("got", ["computed k"] * 2)
        assert len(tally) == 1

    go(main)


@pytest.mark.parametrize("policy", ["nothing", "hold"])
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_dead_sidecar_is_in_nobodys_way(conf, tally, policy, how) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        timeout = LONG if how == "killed" else 0.5
        s = await sidecar(conf, policy, timeout)
        asked = w.ask("k")
        if await asyncio.to_thread(s.conn.poll, 0.4):  # a slow machine: it may not have been asked at all
            assert s.receive() == encoded("k")
        (s.kill if how == "killed" else s.stop)()
        assert await asked == ("got", "computed k")
        assert await w.ask("l") == ("got", "computed l")
        if how == "stopped":
            s.resume()
            await until(lambda: not asked_nobody(conf))
        else:
            s = await sidecar(conf, "grant", LONG)
            assert await w.ask("m") == ("got", "computed m")
            assert s.receive() == encoded("m")

    go(main)
    assert clean_later(conf)


def asked_nobody(conf: dict[str, Any]) -> bool:
    coopshm.configure(conf)
    return coopshm.open("c")._attachment.segment.sidecar() is None


def test_a_sidecar_that_ends_leaves_nobody_waiting(conf, tally) -> None:
    async def main() -> None:
        w = await worker(conf, tally)
        async with hosted(conf) as (host, heard):
            asked = w.ask("k")
            await until(lambda: bool(heard.asks))
            host.hold(stamp_of(host), encoded("k"))
        assert await asked == ("got", "computed k")
        assert clean_later(conf)

    go(main)


def test_when_who_computes_is_killed_another_one_may(conf, tally) -> None:
    async def main() -> None:
        one, two = [await worker(conf, tally) for _ in range(2)]
        async with hosted(conf) as (host, heard):
            heard.answer = host.grant
            asked = one.ask("k", slow=True)
            assert await asked == ("computing", "k")
            one.child.kill()
            await until(lambda: bool(heard.ends))
            assert heard.ends[0][1:] == (encoded("k"), Ended.ABANDONED)
            assert await two.ask("k") == ("got", "computed k")
            assert len(heard.asks) == 2

    go(main)


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
        await until(lambda: at.segment._views == 0)

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
        assert clean_later(conf)

    go(main)


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
            assert await host.deliver(stamp_of(host), entry("k", "theirs")) is Delivered.KNOWN
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
