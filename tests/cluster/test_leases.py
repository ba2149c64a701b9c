"""The lease tables under random schedules: who may compute, who is told, and what is left behind (lease_world.py)."""

from __future__ import annotations

import pytest

from coopshm.cluster import messages as m
from coopshm.cluster.leases import CACHES_MAX, LEASES_MAX, Owner
from coopshm.cluster.relay import Stamp
from coopshm.cluster.views import Members
from tests.cluster.lease_world import CACHE, LEASE_TIMEOUT, Node, World

SEEDS = range(60)


def together(count: int) -> World:
    """Nodes that see each other, and have caught up."""
    world = World(0, count)
    for node in world.nodes.values():
        for other in world.nodes:
            if other != node.name:
                world.see(node, other)
    world.drain()
    return world


def roles(world: World, key: bytes) -> tuple[Node, list[Node]]:
    """The owner node of `key`, and the others."""
    first = next(iter(world.nodes.values()))
    owner = first.asker._members.owner(CACHE, key).name
    return world.nodes[owner], [node for name, node in world.nodes.items() if name != owner]


def test_a_failure_reaches_those_who_wait_and_the_next_who_asks_computes() -> None:
    world = together(4)
    _, nodes = roles(world, b"k")
    for node in nodes:
        world.ask(node, b"k")
        world.drain()
    (holder,) = [node for node in nodes if node.flights[b"k"].computing]
    assert holder.flights[b"k"].wanted
    world.finish(holder, b"k", "failed")
    world.drain()
    assert [node.outcomes for node in nodes if node is not holder] == [1, 1]
    check_quiet(world)
    world.ask(nodes[1], b"k")
    world.drain()
    assert nodes[1].flights[b"k"].computing


def test_who_is_granted_a_lease_is_told_nothing_else() -> None:
    world = together(4)
    owner, nodes = roles(world, b"k")
    world.ask(nodes[0], b"k")
    sent: list[object] = []
    while pairs := world.ready():
        sent.extend(world.queues[pairs[0]][0] for _ in [0] if pairs[0] == (owner.name, nodes[0].name))
        world.receive(pairs[0])
    assert [type(what) for what in sent] == [m.Granted]


def test_an_ask_that_is_repeated_does_not_wait_longer() -> None:
    """By an asker whose view never becomes the owner node's."""
    sent: list[object] = []
    owner = Owner("a", lambda to, what: sent.append(what), lambda *_: None, lambda _: (), settle=3.0)
    members = Members({"a": b"1", "b": b"2"})
    owner.view(members, 0.0)
    for second in range(4):
        owner.told("b", m.View(second, b"%08d" % second, []), float(second))  # which keeps changing
        owner.ask("b", m.Ask(CACHE, Stamp(0, b"1", ""), b"k", 1, b"%08d" % second), float(second))
    assert [type(what) for what in sent] == [m.Granted]


@pytest.mark.parametrize("how", ["abandoned", "killed", "withdrawn"])
def test_when_the_holder_gives_up_the_next_one_computes(how: str) -> None:
    world = together(4)
    _, nodes = roles(world, b"k")
    for node in nodes:
        world.ask(node, b"k")
        world.drain()
    if how == "abandoned":
        world.finish(nodes[0], b"k", "abandoned")
    elif how == "killed":
        world.kill(nodes[0].name)
    else:
        del nodes[0].flights[b"k"]
        world.finish_silently(nodes[0], b"k")
    world.drain()
    assert [node.flights[b"k"].computing for node in nodes[1:]] == [True, False]
    assert [node.flights[b"k"].held for node in nodes[1:]] == [True, True]


def test_what_an_owner_node_has_no_room_for_is_fetched_from_where_it_is() -> None:
    world = together(4)
    owner, nodes = roles(world, b"k")
    for node in [owner, *nodes[1:]]:
        node.full = True
    world.ask(nodes[0], b"k")
    world.drain()
    world.finish(nodes[0], b"k", "stored")
    world.drain()
    nodes[1].full = False
    world.ask(nodes[1], b"k")
    world.drain()
    assert b"k" in nodes[1].stored
    assert sum(world.computations.values()) == 1


def test_a_lost_whereabout_ends_in_a_computation() -> None:
    world = together(4)
    owner, nodes = roles(world, b"k")
    for node in [owner, *nodes[1:]]:
        node.full = True
    world.ask(nodes[0], b"k")
    world.drain()
    world.finish(nodes[0], b"k", "stored")
    world.drain()
    nodes[0].stored.clear()
    world.ask(nodes[1], b"k")
    world.drain()
    assert nodes[1].flights[b"k"].computing


def test_a_grant_for_which_nobody_asks_any_more_is_given_back() -> None:
    world = together(4)
    _, nodes = roles(world, b"k")
    world.ask(nodes[0], b"k")
    stale = nodes[0].flights.pop(b"k")
    nodes[0].asker.moved(CACHE, None)  # says nothing to the owner node
    world.drain()
    world.ask(nodes[1], b"k")
    world.drain()
    assert not stale.computing
    assert nodes[1].flights[b"k"].computing


def test_who_waits_under_a_smaller_stamp_computes_alone() -> None:
    world = together(3)
    _, nodes = roles(world, b"k")
    for node in nodes:
        world.ask(node, b"k")
        world.drain()
    world.move(nodes[0], Stamp(1, b"1", "n"))  # asks again under its new stamp
    world.drain()
    flight = nodes[1].flights[b"k"]
    assert (flight.computing, flight.leased) == (True, False)
    assert nodes[0].flights[b"k"].leased


def test_a_nested_wait_ends_after_the_lease_timeout_and_a_plain_one_does_not() -> None:
    world = together(4)
    _, nodes = roles(world, b"k")
    for node in nodes:
        world.ask(node, b"k")
        world.drain()
    world.ask(nodes[2], b"k", nested=True)
    world.pass_time(LEASE_TIMEOUT / 2)
    world.drain()
    assert not nodes[2].flights[b"k"].computing
    world.pass_time(LEASE_TIMEOUT)
    world.drain()
    assert [node.flights[b"k"].computing for node in nodes] == [True, False, True]
    assert not nodes[2].flights[b"k"].leased


def test_a_holder_that_forgets_loses_its_lease_after_some_views() -> None:
    world = together(4)
    _, nodes = roles(world, b"k")
    for node in nodes[:2]:
        world.ask(node, b"k")
        world.drain()
    nodes[0].asker.moved(CACHE, None)
    for _ in range(20):
        world.pass_time(0.5)
        nodes[0].asker.tell()
        world.drain()
    assert nodes[1].flights[b"k"].leased


def test_tables_are_bounded() -> None:
    sent: list[tuple[str, object]] = []
    owner = Owner("a", lambda to, what: sent.append((to, what)), lambda *_: None, lambda _: (), settle=0.5)
    members = Members({"a": b"1", "b": b"2"})
    owner.view(members, 0.0)
    ask = m.Ask(CACHE, Stamp(0, b"1", ""), b"", 1, members.hash)
    for number in range(LEASES_MAX + 10):  # before views agree: these wait
        owner.ask("b", m.Ask(ask.cache, ask.stamp, b"%d" % number, number, ask.view), 0.0)
    assert len(owner) == LEASES_MAX
    assert [type(what) for _, what in sent] == [m.Alone] * 10
    sent.clear()
    owner.tick(1.0)
    assert len(owner) == LEASES_MAX
    owner.ask("b", ask, 1.0)
    assert isinstance(sent[-1][1], m.Alone)
    holdings = [m.Holding(f"c{number}", ask.stamp, b"k", 1) for number in range(CACHES_MAX + 10)]
    owner.told("b", m.View(1, members.hash, holdings), 1.0)
    assert len(owner._stamps) == CACHES_MAX
    for number in range(CACHES_MAX + 10):  # what nodes say of where their caches stand
        owner.newest(f"d{number}", Stamp(*ask.stamp))
    assert len(owner._stamps) == CACHES_MAX
    owner.view(Members({"a": b"1"}), 2.0)
    assert len(owner) == 0


def check_quiet(world: World) -> None:
    """Everybody was answered, and nothing is kept."""
    for node in world.nodes.values():
        assert node.flights == {}
        assert (len(node.owner), len(node.asker)) == (0, 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_nodes_that_join_one_by_one_compute_each_key_once(seed: int) -> None:
    """No loss, any delays: views differ all the time, and yet nobody is granted what another one holds or has
    stored."""
    world = World(seed, count=5, keys=60)
    names = sorted(world.nodes)
    # Connected from the beginning, pairwise, in the order in which they come to notice; nobody asks alone.
    first = world.random.randint(2, 4)
    for name in names[:first]:
        world.nodes[name].sees = set(names[:first]) - {name}
        world.new_view(world.nodes[name])
    notice = [(one, other) for one in names for other in names if one != other and {one, other} - set(names[:first])]
    active = set(names[:first])
    world.random.shuffle(notice)
    for _ in range(700):
        event = world.random.random()
        if event < 0.6:
            world.step()
        elif event < 0.85:
            node = world.nodes[world.random.choice(sorted(active))]
            world.ask(node, world.random.choice(world.keys))
        elif event < 0.97:
            computing = [(n, k) for n in world.nodes.values() for k, f in n.flights.items() if f.computing]
            if computing:
                node, key = world.random.choice(computing)
                world.finish(node, key, "stored")
        elif notice:
            one, other = notice.pop()
            # What the other one has said meanwhile waits in its queue, as on a connection of which only it knows yet.
            world.see(world.nodes[one], other)
            active |= {n for n in names if len(world.nodes[n].sees) == len(names) - 1}
        for (_, key), holders in world.holders().items():
            assert len(holders) == 1, (key, [node.name for node in holders])
    for one, other in notice:
        world.see(world.nodes[one], other)
    for _ in range(10):
        world.drain()
        for node in world.nodes.values():
            for key in [key for key, flight in node.flights.items() if flight.computing]:
                world.finish(node, key, "stored")
    world.heal()
    check_quiet(world)
    assert all(count == 1 for count in world.computations.values()), world.computations


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lossy", [False, True], ids=["ordered", "lossy"])
def test_whatever_happens_everybody_is_answered_and_nothing_is_left(seed: int, lossy: bool) -> None:
    """Deaths, partitions, resets, failures, full arenas and time; `lossy`: messages lost, repeated and out of order as
    well."""
    world = World(seed, count=4, lossy=lossy)
    for node in world.nodes.values():
        node.sees = set(world.nodes) - {node.name}
        world.new_view(node)
    counter = 0
    for _ in range(500):
        event = world.random.random()
        node = world.nodes[world.random.choice(sorted(world.nodes))]
        other = world.random.choice(["n0", "n1", "n2", "n3"])
        if event < 0.5:
            world.step()
        elif event < 0.65:
            world.ask(node, world.random.choice(world.keys), nested=world.random.random() < 0.2)
        elif event < 0.8:
            computing = sorted(key for key, flight in node.flights.items() if flight.computing)
            if computing:
                how = world.random.choice(["stored", "stored", "failed", "abandoned"])
                world.finish(node, world.random.choice(computing), how)
        elif event < 0.86:
            world.pass_time(world.random.random() / 4)
        elif event < 0.88:
            waiting = sorted(key for key, flight in node.flights.items() if not flight.computing)
            if waiting:
                key = world.random.choice(waiting)
                flight = node.flights.pop(key)
                world.answered += 1
                node.asker.withdrawn(CACHE, flight.stamp, key)
        elif event < 0.90:
            node.full = not node.full
        elif event < 0.92:
            counter += 1
            world.move(node, Stamp(counter, b"1", node.name))
        elif event < 0.94:
            latest = max(each.stamp for each in world.nodes.values())
            if node.stamp != latest:
                world.move(node, latest)
        elif event < 0.96:
            if other in node.sees:
                world.lose(node, other)
                world.calm = world.now
        elif event < 0.98:
            if other != node.name and other in world.nodes and other not in node.sees:
                world.see(node, other)
                world.calm = world.now
        elif len(world.nodes) > 2 and world.random.random() < 0.5:
            world.kill(node.name)
        elif other not in world.nodes:
            world.start(other, Stamp(0, b"1", ""))
            world.calm = world.now
        for each in world.nodes.values():
            if world.random.random() < 0.02:
                each.asker.tell()
        if not lossy:
            world.check()
    world.heal()
    check_quiet(world)
    assert world.asked == world.answered
