"""What workers ask of other hosts, as a relay sees it (coopshm.cluster.host): questions, answers, ends, and nobody who
waits for a sidecar that does not answer. The workers are real processes; the test plays the relay."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import coopshm
from coopshm.cluster.keyids import key_id_of
from coopshm.cluster.relay import Delivered, Ended, Entry, Kind, Origin, Stamp
from coopshm.failures import encode_failure
from coopshm.values import codec
from tests.loops import go, until

from .hosting import LONG, encoded, entry, hosted, left_clean, sidecar, stamp_of, worker


def outcome(key: object, kind: Kind, format: int, payload: bytes) -> Entry:
    return Entry(encoded(key), b"", format, kind, payload)


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
            await until(lambda: waiters(conf) == 2)
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


def waiters(conf: dict[str, Any]) -> int:
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
                await until(lambda: waiters(conf) == 1)  # the sidecar itself
                w.child.send("go")
                assert (await asyncio.to_thread(w.child.receive))[0] in ("raised", "got")
                await until(lambda: bool(heard.ends))
                ((_, key_id, found),) = heard.ends
                assert key_id == encoded("k")
                assert isinstance(found, Entry)
                assert found.kind is wanted
        assert left_clean(conf)

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
            assert waiters(conf) == 0
            host.want(stamp_of(host), encoded("k"))
            await asyncio.sleep(0)
            assert waiters(conf) == 1
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
        assert left_clean(conf)

    go(main)


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
    assert left_clean(conf)


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
        assert left_clean(conf)

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
