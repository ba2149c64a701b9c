"""The secret is changed while all nodes go on: in steps, at each of which some have taken it and some have not."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from coopshm.cluster.engine import EngineRelay
from coopshm.cluster.engine.keyring import choose
from tests.cluster.contract import Fn, until
from tests.cluster.engine_world import SECRET, Load, Nodes, trial
from tests.cluster.engines import RedisServer, needs_redis

OLD, NEW = SECRET, SECRET[::-1]
#: What the file with the secrets has, one step after the other.
STEPS = [(OLD,), (OLD, NEW), (NEW, OLD), (NEW,)]


# ---- where to go


@pytest.mark.parametrize(
    ("mine", "at", "others", "where"),
    [
        ("o", None, {"o": []}, "o"),
        ("no", None, {"n": [], "o": []}, "n"),  # nobody else
        ("on", None, {"o": ["o", "on"], "n": []}, "o"),
        ("no", None, {"o": ["on", "no"], "n": []}, "o"),  # not all have put it first
        ("no", "o", {"o": ["on"], "n": []}, "o"),
        ("no", "o", {"o": ["no", "no"], "n": []}, "n"),  # all have
        ("no", "o", {"o": ["no"], "n": ["no"]}, "n"),
        ("no", "o", {"o": ["no"], "n": ["n"]}, "n"),
        ("no", "n", {"o": ["no"], "n": []}, "n"),  # the others follow
        ("on", None, {"o": [], "n": ["no", "no"]}, "n"),  # was away while the others went
        ("no", "n", {"o": ["o"], "n": ["no"]}, "o"),  # one knows nothing of it: all go to that one
        ("no", "n", {"o": ["o"], "n": ["n"]}, "n"),  # no place for all
        ("on", "o", {"o": [""], "n": []}, "o"),  # one that does not say what it knows
    ],
)
def test_nodes_go_where_all_can_be(mine: str, at: str | None, others: dict[str, list[str]], where: str) -> None:
    assert choose(mine, at, others) == where


@pytest.mark.parametrize("sets", [("o", "on"), ("on", "no"), ("no", "n")])
def test_from_wherever_nodes_are_they_come_together(sets: tuple[str, str]) -> None:
    """Whoever has taken a step, and wherever each one is: if they go one after the other, in any order."""
    chance = random.Random(1)
    for knows in itertools.product(sets, repeat=4):
        for places in itertools.product(*knows):
            at = list(places)
            for _ in range(3):
                for index in chance.sample(range(4), 4):
                    others: dict[str, list[str]] = {place: [] for place in knows[index]}
                    for other in range(4):
                        if other != index and at[other] in others:
                            others[at[other]].append(knows[other])
                    at[index] = choose(knows[index], at[index], others)
            assert len(set(at)) == 1, (knows, places, at)
            if len({each[0] for each in knows}) == 1:
                assert at[0] == knows[0][0]


# ---- over an engine


async def tell(nodes: Nodes, index: int, secrets: tuple[bytes, ...]) -> None:
    """As SIGHUP does."""
    relay = nodes.relays[index]
    assert isinstance(relay, EngineRelay)
    await relay.secrets(secrets)


def fingerprints(server: RedisServer) -> set[bytes]:
    """Of the secrets with which anything is sealed that is there for good."""
    lasting = [key for key in server.all_keys() if server.command("PTTL", key) > 120_000]
    return {key.rpartition(b"}")[0].rpartition(b"/")[2] for key in lasting}


async def settle(nodes: Nodes) -> None:
    """Return once all are in one place."""
    await until(lambda: len({relay._place for relay in nodes.relays if isinstance(relay, EngineRelay)}) == 1)
    await nodes.connected()
    await nodes.agreed()


@needs_redis
@pytest.mark.parametrize("restart", [False, True], ids=["reloaded", "started again"])
@pytest.mark.parametrize("replicate", ["all", "on_demand"])
def test_at_each_step_of_a_change_all_nodes_are_one_cluster(tmp_path: Path, restart: bool, replicate: str) -> None:
    async def test(nodes: Nodes) -> None:
        hosts = [nodes.host() for _ in range(3)]
        await nodes.start()
        await settle(nodes)
        await hosts[0].reset(b"0")
        await hosts[0].cached(b"kept", Fn("kept"))
        before = fingerprints(server)
        count = 0
        for secrets in STEPS[1:]:
            nodes.settings |= {"secret": secrets[0], "others": secrets[1:]}
            for index in range(3):
                if restart:
                    await nodes.stop(index)
                    await nodes.start(index)
                else:
                    await tell(nodes, index, secrets)
                # What goes wrong would show after some signs of life only: until another node has given some.
                await settle(nodes)
                stamp = await hosts[(index + 1) % 3].reset(b"%d" % count)
                await until(lambda stamp=stamp: {host.stamp for host in hosts} == {stamp})
                await settle(nodes)
                fn = Fn(count)
                assert {await host.cached(b"k", fn) for host in hosts} == {count}
                assert fn.calls <= 2
                count += 1
        await settle(nodes)
        await nodes.compute_once(b"a", b"b")
        assert nodes.counted("tampered") == 0
        # What was sealed with the old one is gone within a minute.
        assert len(fingerprints(server)) == 1
        assert fingerprints(server) != before

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url, replicate=replicate), test)


@needs_redis
@pytest.mark.parametrize("seed", range(2))
def test_histories_hold_while_the_secret_is_changed_under_load(tmp_path: Path, seed: int) -> None:
    async def test(nodes: Nodes) -> None:
        chance = random.Random(seed)
        hosts = await nodes.ready(4)
        async with Load(nodes) as load:
            for secrets in STEPS[1:]:
                for index in chance.sample(range(4), 4):
                    await tell(nodes, index, secrets)
                    await load.goes_on(chance.randrange(60))
                    await chance.choice(hosts).reset(b"%d" % chance.randrange(3))
                    if chance.random() < 0.3:
                        server.flush()
                await settle(nodes)
        await nodes.together()
        await nodes.same_entries()
        assert all(host.flights == {} for host in hosts)
        await nodes.compute_once(b"a", b"b")

    with RedisServer(tmp_path) as server:
        trial(Nodes(server.url, lease_timeout=2.0), test)
