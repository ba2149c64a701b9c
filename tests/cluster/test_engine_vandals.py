"""Who can write to the engine, and is no node: nothing that he puts there is decoded or given to anybody, and when he
is through, all goes on. (He can hinder: then hosts compute for themselves.)"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.contract import Fn, until
from tests.cluster.engine_world import SECRET, Nodes, trial
from tests.cluster.engines import RedisServer, needs_redis

pytestmark = needs_redis


class Vandal:
    """Knows where what is, and has no secret."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def do(self, *words: str | bytes | float) -> object:
        return self._server.command(*words)

    def key(self, suffix: str) -> bytes:
        """The one key that ends so."""
        (found,) = [key for key in self._server.all_keys() if key.endswith(suffix.encode())]
        return found

    def has(self, suffix: str, field: bytes) -> bool:
        keys = [key for key in self._server.all_keys() if key.endswith(suffix.encode())]
        return len(keys) == 1 and bool(self.do("HEXISTS", keys[0], field))

    def get(self, suffix: str, field: str | bytes) -> bytes:
        found = self.do("HGET", self.key(suffix), field)
        assert isinstance(found, bytes)
        return found

    def put(self, suffix: str, field: str | bytes, value: str | bytes) -> None:
        self.do("HSET", self.key(suffix), field, value)

    def say(self, message: bytes, field: str = "m", ahead: int = 1) -> None:
        """Append to the log, with the id that comes next."""
        seq = self.do("HINCRBY", self.key(":head"), "seq", ahead)
        epoch = self.get(":head", "epoch").decode()
        self.do("XADD", self.key(":log"), f"{epoch}-{seq}", field, message)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


# ---- entries


ENTRIES: dict[str, Callable[[bytes, bytes, bytes], bytes]] = {
    # of an entry, another key's, and the same key's of before the last reset
    "noise": lambda entry, other, old: os.urandom(200),
    "nothing": lambda entry, other, old: b"",
    "cut off in the seal": lambda entry, other, old: entry[:20],
    "cut off": lambda entry, other, old: entry[:-1],
    "longer": lambda entry, other, old: entry + b"x",
    "a bit of the seal": lambda entry, other, old: flipped(entry, 0),
    "a bit of the length": lambda entry, other, old: flipped(entry, 32),
    "a bit of what precedes": lambda entry, other, old: flipped(entry, 40),
    "a bit of the payload": lambda entry, other, old: flipped(entry, len(entry) - 1),
    "of another key": lambda entry, other, old: other,
    "of before a reset": lambda entry, other, old: old,
}


@pytest.mark.parametrize("size", [1, 100_000])
def test_an_entry_that_no_node_has_put_there_is_dropped_and_computed(tmp_path: Path, size: int) -> None:
    async def test(nodes: Nodes) -> None:
        vandal = Vandal(server)
        hosts = [nodes.host() for _ in range(2)]
        await nodes.start()
        await nodes.connected()
        await nodes.agreed()
        old: dict[bytes, bytes] = {}
        kinds = {kind.encode(): damage for kind, damage in ENTRIES.items()}
        for turn in range(2):
            for key in (*kinds, b"other"):
                await hosts[0].cached(key, Fn(f"{key!r}" * size))
                await until(lambda key=key: vandal.has(":values", key))
            if turn == 0:
                old = {key: vandal.get(":values", key) for key in kinds}
                await hosts[0].reset(b"2")
                await nodes.agreed()
        for count, (key, damage) in enumerate(kinds.items(), start=1):
            entry = vandal.get(":values", key)
            bad = damage(entry, vandal.get(":values", b"other"), old[key])
            vandal.put(":values", key, bad)
            own = Fn("own")
            assert await hosts[1].cached(key, own) == "own", key
            assert own.calls == 1
            assert nodes.counted("tampered") >= count
            # Replaced by what was computed.
            await until(
                lambda key=key, entry=entry, bad=bad: (
                    vandal.has(":values", key) and vandal.get(":values", key) not in (bad, entry)
                )
            )
        assert await hosts[1].cached(b"other", Fn("own")) == f"{b'other'!r}" * size

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url, replicate="on_demand", lease_timeout=5.0), test)


@pytest.mark.parametrize("what", ["missing", "changed", "longer", "swapped"])
def test_a_large_entry_whose_pieces_are_not_its_own_is_dropped(tmp_path: Path, what: str) -> None:
    async def test(nodes: Nodes) -> None:
        vandal = Vandal(server)
        hosts = [nodes.host() for _ in range(2)]
        await nodes.start()
        await nodes.connected()
        await nodes.agreed()
        await hosts[0].cached(b"k", Fn("x" * 500_000 + "y" * 500_000))
        await until(lambda: vandal.has(":values", b"k"))
        pieces = vandal.key(":pieces")
        fields = sorted(vandal.do("HKEYS", pieces))  # type: ignore[call-overload]
        assert len(fields) > 2
        first, last = vandal.get(":pieces", fields[0]), vandal.get(":pieces", fields[2])
        if what == "missing":
            vandal.do("HDEL", pieces, fields[1])
        elif what == "changed":
            vandal.put(":pieces", fields[0], flipped(first, 1000))
        elif what == "longer":
            vandal.put(":pieces", fields[0], first * 100)
        else:
            vandal.put(":pieces", fields[0], last)
            vandal.put(":pieces", fields[2], first)
        assert await hosts[1].cached(b"k", Fn("own")) == "own"
        assert nodes.counted("tampered") >= 1

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url, replicate="on_demand", lease_timeout=5.0), test)


# ---- all else


def _replay(vandal: Vandal) -> None:
    messages = vandal.do("XRANGE", vandal.key(":log"), "-", "+")
    assert isinstance(messages, list)
    for _, fields in messages:
        vandal.say(dict(fields)[b"m"] if isinstance(fields, dict) else fields[1])


def _wrong_type(vandal: Vandal, suffix: str) -> None:
    key = vandal.key(suffix)
    vandal.do("DEL", key)
    vandal.do("SET", key, "x")


VANDALISM: dict[str, Callable[[Vandal], object]] = {
    "noise in the log": lambda vandal: vandal.say(os.urandom(100)),
    "nothing in the log": lambda vandal: vandal.say(b""),
    "another field in the log": lambda vandal: vandal.say(b"x", field="x"),
    "a megabyte in the log": lambda vandal: vandal.say(b"x" * 1_000_000),
    "the log once more": _replay,
    "a gap in the log": lambda vandal: vandal.say(b"x", ahead=5),
    "a number that is taken": lambda vandal: vandal.do("HINCRBY", vandal.key(":head"), "seq", -3),
    "the last number that there is": lambda vandal: vandal.do(
        "XADD", vandal.key(":log"), f"{2**64 - 1}-{2**64 - 1}", "m", "x"
    ),
    "a log without its beginning": lambda vandal: vandal.do("XTRIM", vandal.key(":log"), "MAXLEN", 0),
    "no log": lambda vandal: vandal.do("DEL", vandal.key(":log")),
    "a log that is none": lambda vandal: _wrong_type(vandal, ":log"),
    "noise as the claim": lambda vandal: vandal.put(":head", "claim", os.urandom(100)),
    "no claim": lambda vandal: vandal.do("HDEL", vandal.key(":head"), "claim"),
    "another generation": lambda vandal: vandal.put(":head", "gen", b"\xff" * 32),
    "no generation": lambda vandal: vandal.do("HDEL", vandal.key(":head"), "gen"),
    "an epoch that is no number": lambda vandal: vandal.put(":head", "epoch", b"\xffx"),
    "an epoch that is too large": lambda vandal: vandal.put(":head", "epoch", str(2**70)),
    "a run that is no text": lambda vandal: vandal.put(":head", "run", b"\xff\xfe"),
    "a sequence that is no number": lambda vandal: vandal.put(":head", "seq", b"\xff"),
    "no epoch": lambda vandal: vandal.do("HDEL", vandal.key(":head"), "epoch"),
    "bytes beyond all bounds": lambda vandal: vandal.put(":head", "bytes", str(2**62)),
    "no head": lambda vandal: vandal.do("DEL", vandal.key(":head")),
    "a head that is none": lambda vandal: _wrong_type(vandal, ":head"),
    "noise as a node": lambda vandal: vandal.put(":nodes", "n1", os.urandom(100)),
    "a node that is none": lambda vandal: vandal.put(":nodes", b"\xff", os.urandom(100)),
    "one node for another": lambda vandal: vandal.put(":nodes", "n1", vandal.get(":nodes", "n0")),
    "a silent node that is none": lambda vandal: vandal.do("ZADD", vandal.key(":beats"), 1, b"\xff"),
    "nodes that are none": lambda vandal: _wrong_type(vandal, ":nodes"),
    "beats that are none": lambda vandal: _wrong_type(vandal, ":beats"),
    "values that are none": lambda vandal: _wrong_type(vandal, ":values"),
}


@pytest.mark.parametrize("part", range(4))
def test_vandalism_hinders_at_most_and_is_over_with_a_flush(tmp_path: Path, part: int) -> None:
    async def test(nodes: Nodes) -> None:
        vandal = Vandal(server)
        hosts = [nodes.host() for _ in range(3)]
        await nodes.start()
        for what in list(VANDALISM)[part::4]:
            await nodes.connected()
            await nodes.agreed()
            await hosts[0].reset(what.encode())
            stamp = await nodes.agreed()
            await hosts[1].cached(b"k", Fn(what))
            await until(lambda: vandal.has(":values", b"k"))
            VANDALISM[what](vandal)
            for turn in range(3):
                fns = [Fn(f"{turn}") for _ in hosts]
                values = await asyncio.gather(*(h.cached(b"%d" % turn, fn) for h, fn in zip(hosts, fns, strict=True)))
                assert set(values) == {f"{turn}"}, what
                assert all(fn.calls <= 1 for fn in fns), what
            assert {await host.cached(b"k", Fn(what)) for host in hosts} == {what}
            assert {host.stamp for host in hosts} == {stamp}, what
            server.flush()
            await nodes.connected()
            await nodes.agreed()
            assert {host.stamp for host in hosts} == {stamp}, what
            await nodes.compute_once(b"a", b"b")

    with RedisServer(tmp_path) as server:
        replicate = "on_demand" if part % 2 else "all"
        trial(Nodes(server.url, lease_timeout=2.0, silence=2.0, replicate=replicate), test)


def test_an_older_head_put_back_takes_nobody_back(tmp_path: Path) -> None:
    """By who has kept a copy: all of it is authentic."""

    async def test(nodes: Nodes) -> None:
        vandal = Vandal(server)
        hosts = await nodes.ready(3)
        await hosts[0].reset(b"2")
        await nodes.agreed()
        await hosts[0].cached(b"k", Fn("old"))
        await nodes.same_entries()
        copy = vandal.do("DUMP", vandal.key(":head"))
        assert isinstance(copy, bytes)
        await hosts[1].reset(b"3")
        stamp = await nodes.agreed()
        assert await hosts[0].cached(b"k", Fn("new")) == "new"
        vandal.do("RESTORE", vandal.key(":head"), 0, copy, "REPLACE")
        newcomer = nodes.host()
        await nodes.start(3)
        await until(lambda: newcomer.stamp == stamp)
        assert {await host.cached(b"k", Fn("new")) for host in nodes.hosts} == {"new"}
        await nodes.together()
        assert {host.stamp for host in nodes.hosts} == {stamp}
        await nodes.compute_once(b"a", b"b")

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url, lease_timeout=2.0), test)


def test_two_secrets_are_two_clusters(tmp_path: Path) -> None:
    """As while the secret is being changed, one sidecar after the other."""

    async def test(nodes: Nodes) -> None:
        one, two, late = (nodes.host() for _ in range(3))
        await nodes.start(0, 1)
        nodes.settings["secret"] = SECRET[::-1]
        await nodes.start(2)
        await nodes.connected(0, 1)
        await one.reset(b"2")
        await one.reset(b"3")
        stamp = await nodes.agreed(0, 1)
        own = await late.reset(b"mine")
        assert await late.cached(b"k", Fn("late")) == "late"
        assert await one.cached(b"k", Fn("one")) == "one"
        assert await two.cached(b"k", Fn("two")) == "one"
        assert (one.stamp, two.stamp, late.stamp) == (stamp, stamp, own)
        assert (nodes.sees(0), nodes.sees(1), nodes.sees(2)) == ({"n1"}, {"n0"}, set())
        assert nodes.counted("tampered") == 0
        for index in (0, 1):  # and all have the new one
            await nodes.stop(index)
            await nodes.start(index)
        await nodes.connected()
        assert await nodes.agreed() >= stamp
        await nodes.compute_once(b"a", b"b")

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url), test)
