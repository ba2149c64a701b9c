"""A simulated cluster around the lease tables: hosts, workers, a network and a clock, all of it driven by one random
generator.

Each step is one event: something is delivered, somebody asks, computes, fails, dies, sees or loses somebody. The world
knows what no node can know, who is connected to whom and who computes with a lease, and checks it after each step.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from coopshm.cluster import messages as m
from coopshm.cluster.asks import Asker, Effects
from coopshm.cluster.leases import Carry, Owner
from coopshm.cluster.relay import Ended, Entry, KeyId, Kind, Stamp
from coopshm.cluster.views import Members

CACHE = "c"
LEASE_TIMEOUT = 1.0
SETTLE = 0.5


class LogLine(NamedTuple):
    what: str
    stamp: Stamp = Stamp(0, b"", "")
    key: KeyId = b""


@dataclass
class Flight:
    """A worker's, as the segment has it."""

    stamp: Stamp
    since: float
    nested: bool = False
    held: bool = False
    computing: bool = False
    leased: bool = False  # by a grant, not by a timeout or on its own
    wanted: bool = False


@dataclass
class Node:
    name: str
    instance: bytes
    owner: Owner
    asker: Asker
    stamp: Stamp
    stored: set[KeyId] = field(default_factory=set)
    full: bool = False
    flights: dict[KeyId, Flight] = field(default_factory=dict)
    sees: set[str] = field(default_factory=set)  # besides itself
    log: list[KeyId] = field(default_factory=list)
    outcomes: int = 0
    behind: set[str] = field(default_factory=set)  # whose log it has not caught up with


class World:
    def __init__(self, seed: int, count: int, keys: int = 3, lossy: bool = False) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.keys = [b"k%d" % i for i in range(keys)]
        self.lossy = lossy
        self.nodes: dict[str, Node] = {}
        self.queues: dict[tuple[str, str], deque[object]] = {}
        self.calm = 0.0  # since when no node is lost, cut off or cold, and no message either
        self.computations: dict[tuple[Stamp, KeyId], int] = {}
        self.granted_at: dict[tuple[str, KeyId], float] = {}
        self.instances = 0
        self.asked = 0
        self.answered = 0
        for index in range(count):
            self.start(f"n{index}", Stamp(0, b"1", ""))

    # -- nodes

    def start(self, name: str, stamp: Stamp) -> Node:
        self.instances += 1
        instance = b"%016d" % self.instances

        def send(to: str, what: m.Message | Carry) -> None:
            if not isinstance(what, Carry):
                assert m.decode(m.encode(what)) is not None
            self.queues.setdefault((name, to), deque()).append(what)

        effects = Effects(
            grant=lambda cache, s, k: self.grant(name, s, k),
            hold=lambda cache, s, k: self.hold(name, s, k),
            want=lambda cache, s, k: self.want(name, s, k),
            follows=lambda node, cache: node in self.nodes[name].sees,
        )
        owner = Owner(
            name,
            send,
            find=lambda cache, s, k: self.find(name, s, k),
            unsure=lambda cache: self.nodes[name].behind & self.nodes[name].sees,
            settle=SETTLE,
            now=self.now,
        )
        node = self.nodes[name] = Node(name, instance, owner, Asker(name, send, effects, LEASE_TIMEOUT), stamp)
        owner.newest(CACHE, stamp)
        self.new_view(node)
        return node

    def new_view(self, node: Node) -> None:
        members = Members({name: self.nodes[name].instance for name in node.sees | {node.name}})
        node.owner.view(members, self.now)
        node.asker.view(members, self.now)

    def see(self, node: Node, other: str) -> None:
        """A connection is a matter of both: what was under way in a former one is gone."""
        node.sees.add(other)
        node.behind.add(other)
        self.new_view(node)
        self.queues.setdefault((node.name, other), deque()).append(LogLine("subscribe"))

    def lose(self, node: Node, other: str) -> None:
        """What was under way is gone, in both directions; the other one may find out later."""
        node.sees.discard(other)
        self.queues.pop((node.name, other), None)
        self.queues.pop((other, node.name), None)
        self.new_view(node)

    # -- the segment of a host, as far as leases see it

    def find(self, name: str, stamp: Stamp, key: KeyId) -> Entry | None:
        node = self.nodes[name]
        return Entry(key, key, 0, Kind.VALUE, b"v") if node.stamp == stamp and key in node.stored else None

    def grant(self, name: str, stamp: Stamp, key: KeyId) -> None:
        node = self.nodes[name]
        flight = node.flights.get(key)
        assert stamp == node.stamp, "a grant of another stamp"
        if flight is not None and not flight.computing:
            self.compute(node, key, flight, leased=len(self.leased(node, key)) > 0)
        elif flight is None:
            self.queues.setdefault((name, name), deque()).append(LogLine("too late", stamp, key))

    def leased(self, node: Node, key: KeyId) -> list[m.Holding]:
        """What the node would list as held."""
        sent: list[m.Holding] = []
        before = node.asker._send
        node.asker._send = lambda to, what: sent.extend(what.holdings if isinstance(what, m.View) else ())
        node.asker.tell()
        node.asker._send = before
        return [holding for holding in sent if holding.key_id == key]

    def compute(self, node: Node, key: KeyId, flight: Flight, leased: bool) -> None:
        flight.computing, flight.leased = True, leased
        self.answered += 1
        place = (flight.stamp, key)
        self.computations[place] = self.computations.get(place, 0) + 1
        if leased:
            self.granted_at[node.name, key] = self.now

    def hold(self, name: str, stamp: Stamp, key: KeyId) -> None:
        flight = self.nodes[name].flights.get(key)
        if flight is not None and not flight.computing:
            flight.held = True

    def want(self, name: str, stamp: Stamp, key: KeyId) -> None:
        flight = self.nodes[name].flights.get(key)
        if flight is not None:
            flight.wanted = True

    def deliver(self, node: Node, stamp: Stamp, key: KeyId, store: bool) -> None:
        flight = node.flights.get(key)
        if stamp == node.stamp:
            if store and not node.full:
                node.stored.add(key)
            if flight is not None and not flight.computing:
                del node.flights[key]
                self.answered += 1
        node.asker.arrived(CACHE, stamp, key)

    # -- events

    def ask(self, node: Node, key: KeyId, nested: bool = False) -> None:
        if key in node.stored:
            return
        flight = node.flights.get(key)
        if flight is None:
            self.asked += 1
            node.flights[key] = Flight(node.stamp, self.now, nested)
        elif flight.computing or not nested:
            return
        node.asker.ask(CACHE, node.stamp, key, nested, self.now)

    def finish(self, node: Node, key: KeyId, how: str) -> None:
        flight = node.flights.pop(key)
        self.granted_at.pop((node.name, key), None)
        outcome: Entry | Ended = Ended.ABANDONED
        if how == "stored" and not node.full:
            node.stored.add(key)
            self.publish(node, key)
            outcome = Ended.STORED
        elif how != "abandoned":
            outcome = Entry(key, b"", 0, Kind.FAILURE, b"x")
        node.asker.ended(CACHE, flight.stamp, key, outcome)

    def finish_silently(self, node: Node, key: KeyId) -> None:
        """As if its ask were another one: what it was granted is refused when it is said again."""
        node.asker.moved(CACHE, None)
        owner = self.nodes[Members(self.nodes[node.name].asker._members.instances).owner(CACHE, key).name]
        lease = owner.owner._leases[CACHE][key]
        self.queues.setdefault((owner.name, node.name), deque()).append(m.Granted(CACHE, node.stamp, key, lease.serial))

    def publish(self, node: Node, key: KeyId) -> None:
        node.log.append(key)
        for other in node.sees:
            self.queues.setdefault((node.name, other), deque()).append(LogLine("entry", node.stamp, key))

    def timeouts(self, node: Node) -> None:
        """Workers whose ask was not answered compute."""
        for key, flight in node.flights.items():
            if not flight.computing and not flight.held and self.now >= flight.since + LEASE_TIMEOUT:
                self.compute(node, key, flight, leased=False)
                node.asker.withdrawn(CACHE, flight.stamp, key)

    def move(self, node: Node, stamp: Stamp) -> None:
        """A reset arrives there; whoever waits asks again under the new stamp."""
        again = list(node.flights)
        self.answered += sum(not flight.computing for flight in node.flights.values())
        node.stamp, node.stored, node.flights, node.log = stamp, set(), {}, []
        for place in [place for place in self.granted_at if place[0] == node.name]:
            del self.granted_at[place]
        node.owner.newest(CACHE, stamp)
        node.asker.moved(CACHE, stamp)
        for key in again:
            self.ask(node, key)

    def kill(self, name: str) -> None:
        node = self.nodes.pop(name)
        self.answered += sum(not flight.computing for flight in node.flights.values())
        for place in [place for place in self.granted_at if place[0] == name]:
            del self.granted_at[place]
        for pair in [pair for pair in self.queues if name in pair]:
            del self.queues[pair]
        for other in self.nodes.values():
            if name in other.sees:
                other.sees.discard(name)
                self.new_view(other)
        self.calm = self.now

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for node in self.nodes.values():
            node.owner.tick(self.now)
            node.asker.tick(self.now)
            self.timeouts(node)

    def receive(self, pair: tuple[str, str]) -> None:
        queue = self.queues[pair]
        index = 0
        if self.lossy and pair[0] != pair[1]:
            index = self.random.randrange(len(queue))  # out of order
        what = queue[index]
        if not (self.lossy and pair[0] != pair[1] and self.random.random() < 0.1):  # else it is there a second time
            del queue[index]
        if not queue:
            self.queues.pop(pair, None)
        if self.lossy and pair[0] != pair[1] and self.random.random() < 0.1:
            return
        self.hear(pair[0], self.nodes[pair[1]], what)

    def hear(self, sender: str, node: Node, what: object) -> None:
        now = self.now
        if isinstance(what, LogLine):
            if what.what == "entry":
                self.deliver(node, what.stamp, what.key, store=True)
            elif what.what == "subscribe":
                for key in sorted(node.stored):
                    self.queues.setdefault((node.name, sender), deque()).append(LogLine("entry", node.stamp, key))
                self.queues.setdefault((node.name, sender), deque()).append(LogLine("caught up"))
            elif what.what == "too late":
                if what.key not in node.flights:
                    ended = Ended.STORED if what.key in node.stored else Ended.ABANDONED
                    node.asker.ended(CACHE, what.stamp, what.key, ended)
            else:
                node.behind.discard(sender)
        elif isinstance(what, Carry):
            if what.purpose == m.Purpose.OUTCOME_UP:
                node.owner.outcome(sender, what)
            elif what.purpose == m.Purpose.OUTCOME_DOWN:
                node.outcomes += 1
                self.deliver(node, what.stamp, what.entry.key_id, store=False)
            else:
                self.deliver(node, what.stamp, what.entry.key_id, store=True)
                node.owner.found(sender, what)
        elif isinstance(what, m.View):
            node.owner.told(sender, what, now)
        elif isinstance(what, m.Ask):
            node.owner.ask(sender, what, now)
        elif isinstance(what, m.Withdraw):
            node.owner.withdraw(sender, what, now)
        elif isinstance(what, m.Done):
            node.owner.done(sender, what, now)
        elif isinstance(what, m.Want):
            node.asker.want(sender, what)
        elif isinstance(what, m.Fetch):
            stamp = Stamp(*what.stamp)
            entry = self.find(node.name, stamp, what.key_id)
            if entry is None:
                reply: object = m.NotHere(CACHE, stamp, what.key_id, what.serial)
            else:
                reply = Carry(m.Purpose.ANSWER, what.serial, CACHE, stamp, entry)
            self.queues.setdefault((node.name, sender), deque()).append(reply)
        elif isinstance(what, m.NotHere):
            node.asker.not_here(what, now)
            node.owner.not_here(sender, what, now)
        else:
            assert isinstance(what, (m.Granted, m.Held, m.Alone, m.At, m.Finished))
            node.asker.hear(sender, what, now)

    def ready(self) -> list[tuple[str, str]]:
        """Where something can be received: a node reads from another one once it sees that itself."""
        return sorted(pair for pair in self.queues if pair[0] == pair[1] or pair[0] in self.nodes[pair[1]].sees)

    def step(self) -> bool:
        pairs = self.ready()
        if pairs:
            self.receive(self.random.choice(pairs))
        return bool(pairs)

    def drain(self) -> None:
        while self.step():
            pass

    def heal(self) -> None:
        """Everybody sees everybody, nothing is lost any more, all are at one stamp, and computations end."""
        self.lossy = False
        latest = max(node.stamp for node in self.nodes.values())
        for node in self.nodes.values():
            if node.stamp != latest:
                self.move(node, latest)
            node.sees = set(self.nodes) - {node.name}
            node.full = False
            self.new_view(node)
        for _ in range(40):
            for node in self.nodes.values():
                node.asker.tell()
            self.drain()
            for node in self.nodes.values():
                for key in [key for key, flight in node.flights.items() if flight.computing]:
                    self.finish(node, key, "stored")
            self.drain()
            self.pass_time(0.5)

    # -- what must hold

    def holders(self) -> dict[tuple[Stamp, KeyId], list[Node]]:
        found: dict[tuple[Stamp, KeyId], list[Node]] = {}
        for node in self.nodes.values():
            for key, flight in node.flights.items():
                if flight.leased:
                    found.setdefault((flight.stamp, key), []).append(node)
        return found

    def check(self) -> None:
        """Nobody is granted what another one holds, while all see all and have done so for a while."""
        if any(node.sees != set(self.nodes) - {node.name} for node in self.nodes.values()):
            self.calm = self.now
        for (_, key), nodes in self.holders().items():
            since_calm = [node.name for node in nodes if self.granted_at[node.name, key] > self.calm + 2 * SETTLE]
            assert len(since_calm) <= 1, (key, since_calm)
