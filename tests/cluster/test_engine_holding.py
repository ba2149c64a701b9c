"""Who can write to the engine, and is no node, keeps nobody waiting for longer than a lease lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from coopshm.cluster.engine.holding import Watch, proof_of
from coopshm.cluster.engine.seal import Seal, TamperedError
from tests.cluster.contract import Fn, until
from tests.cluster.engine_world import SECRET, Nodes, trial
from tests.cluster.engines import RedisServer, needs_redis
from tests.cluster.memory import FnError

SEAL = Seal(SECRET, "test")


def proof(token: bytes, serial: int, seal: Seal = SEAL, key: bytes = b"k", generation: str = "g") -> bytes:
    return proof_of(seal, "c", generation, key, token, serial, 2000)


def test_a_holder_is_waited_for_as_long_as_it_shows_new_proofs() -> None:
    watch = Watch(grace=1.0)

    def left(token: bytes, serial: int, now: float) -> float:
        return watch.left(SEAL, "c", "g", b"k", token, proof(token, serial), now)

    assert left(b"a", 0, 100.0) == 3.0
    assert left(b"a", 0, 102.0) == 1.0
    assert left(b"a", 1, 102.0) == 3.0
    assert left(b"b", 0, 104.0) == 3.0  # another holder
    assert left(b"a", 1, 106.0) == 1.0  # put back
    assert left(b"a", 0, 106.5) == 0.5
    assert left(b"b", 0, 108.0) == 0.0
    assert left(b"b", 5, 200.0) == 3.0


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"x" * 48,
        SEAL.close((b"lease", b"c", b"g", b"k", b"t"), b"short"),
        proof(b"t", 0, seal=Seal(SECRET[::-1], "test")),
        proof(b"t", 0, seal=Seal(SECRET, "another")),
        proof(b"t", 0, key=b"another"),
        proof(b"t", 0, generation="of before"),
        proof(b"another", 0),
        proof(b"t", 0)[:-1] + b"x",
    ],
)
def test_what_no_node_has_made_for_this_lease_is_no_proof(bad: bytes) -> None:
    with pytest.raises(TamperedError):
        Watch(1.0).left(SEAL, "c", "g", b"k", b"t", bad, 0.0)


FORGED: dict[str, Callable[[dict[bytes, bytes]], dict[str | bytes, str | bytes]]] = {
    # of what an authentic lease of another key has
    "nothing but a token": lambda real: {"token": "somebody"},
    "noise": lambda real: {"token": "somebody", "fence": "x", "proof": b"\xff" * 48},
    "of another key": lambda real: {**real},
    "another token": lambda real: {**real, "token": "somebody"},
}


@needs_redis
@pytest.mark.parametrize("how", FORGED)
def test_a_lease_that_no_node_has_holds_nobody(tmp_path: Path, how: str) -> None:
    """It would last for ten minutes."""

    async def test(nodes: Nodes) -> None:
        hosts = await nodes.ready(2)
        held = Fn("held", opened=False)
        call = asyncio.ensure_future(hosts[0].cached(b"held", held))
        await held.called()
        (lease,) = [key for key in server.all_keys() if key.endswith(b":lease:held")]
        forged = FORGED[how](server.command("HGETALL", lease))
        name = lease.removesuffix(b"held") + b"k"
        server.command("HSET", name, *(word for pair in forged.items() for word in pair))
        server.command("PEXPIRE", name, 600_000)
        assert await hosts[1].cached(b"k", Fn("own")) == "own"
        assert nodes.counted("tampered") == 1
        held.open.set()
        assert await call == "held"
        assert server.command("EXISTS", name) == 1  # it would have been waited for

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url, lease_ttl=600.0), test)


@needs_redis
def test_a_lease_that_is_put_back_holds_nobody_for_longer_than_it_lasts(tmp_path: Path) -> None:
    async def test(nodes: Nodes) -> None:
        hosts = await nodes.ready(2)
        failing = Fn(FnError("not now"), opened=False)
        call = asyncio.ensure_future(hosts[0].cached(b"k", failing))
        await failing.called()
        (lease,) = [key for key in server.all_keys() if key.endswith(b":lease:k")]
        copy = server.command("DUMP", lease)
        failing.open.set()
        with pytest.raises(FnError):
            await call
        await until(lambda: not server.command("EXISTS", lease))
        server.command("RESTORE", lease, 600_000, copy)
        waiting = asyncio.ensure_future(hosts[1].cached(b"k", Fn("own")))
        await until(lambda: hosts[1].flight(b"k").held)  # it is a node's, as far as can be seen
        assert await waiting == "own"
        assert nodes.counted("tampered") == 1
        assert server.command("EXISTS", lease) == 1

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url, lease_ttl=1.0, silence=1.0), test)


@needs_redis
def test_a_computation_may_take_many_times_as_long_as_a_lease_lasts(tmp_path: Path) -> None:
    """Its holder shows a new proof with each renewal, and is waited for."""

    async def test(nodes: Nodes) -> None:
        hosts = await nodes.ready(3)
        fn = Fn("late", opened=False)
        calls = [asyncio.ensure_future(host.cached(b"k", fn)) for host in hosts]
        await fn.called()
        await until(lambda: sum(host.flight(b"k").held for host in hosts) == 2)
        (lease,) = [key for key in server.all_keys() if key.endswith(b":lease:k")]
        seen: set[bytes] = set()

        def renewed() -> bool:
            seen.add(server.command("HGET", lease, "proof"))
            return len(seen) > 8  # in a third of lease_ttl each: longer than a waiter's patience without

        await until(renewed)
        assert all(host.flight(b"k") for host in hosts)
        fn.open.set()
        assert await asyncio.gather(*calls) == ["late"] * 3
        assert fn.calls == 1
        assert nodes.counted("tampered") == 0

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url, lease_ttl=2.0, silence=1.0), test)
