"""The owner node's table: who may compute which key. Pure: messages in, messages out, the time as an argument.

Each key has one owner node in a view (views.py). It grants the lease to the first who asks, has the others wait, and
passes what becomes of it on to them: nothing (the entry comes by the holder's log), an outcome (failure, NoCache), or
the lease itself, when the holder gives up or is lost.

**At most one holder, while views change.** On a change each node first takes its new view, then sends that to every
peer, with all leases that it holds of that peer, then asks anew what is not answered yet; answers to former asks are
refused from then on (asks.py). So when all peers of an owner have told it the very view that it has, it knows of every
lease on its keys, and nobody can get one from a former owner any more. Until then it answers no ask (*unsettled*).
Views that never agree, since some nodes cannot reach each other, must not block anybody: a disagreement counts for
`settle` seconds from when it arose.

**Searching.** An owner node that has just come to see another one may lack what that one has. While it copies, it asks
those that it has not caught up with for what it cannot find, before it grants; the askers wait meanwhile.

**Nothing is lost for good.** Asks are repeated until answered, and confirmed now and then while they wait; views are
repeated with all leases of the sender. A lease whose holder does not list it any more is passed on. So a lost, late,
repeated or reordered message costs time, at worst a second computation.

A table is of one stamp, the largest that it has heard of. Who asks under a smaller one is told to compute alone: its
result will be void everywhere else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from . import messages as m
from .relay import Entry, KeyId, Stamp
from .views import Members

__all__ = ["Carry", "Owner", "Send"]

#: Most leases, waiting asks and whereabouts of one node; beyond, askers compute alone.
LEASES_MAX = 65_536

#: Caches that a table knows of. They need not be known to this host otherwise.
CACHES_MAX = 1000

#: Seconds after which a granted lease must be listed by its holder: several times the period at which views are
# repeated.
AUDIT_SECONDS = 5.0


class Carry(NamedTuple):
    """An entry to send."""

    purpose: int  #: messages.Purpose
    number: int
    cache: str
    stamp: Stamp
    entry: Entry


#: Takes a node's name (possibly this one's own), and what to send it.
Send = Callable[[str, "m.Message | Carry"], None]


@dataclass
class _Lease:
    holder: str  # "" while searching
    serial: int
    granted: float
    waiters: dict[str, int] = field(default_factory=dict)  # name -> serial of its ask, in the order of arrival
    asked: set[str] = field(default_factory=set)  # while searching: who has yet to answer


@dataclass
class _Peer:
    view: bytes = b""
    number: int = -1
    since: float = 0.0  # when it came to that view


class Owner:
    """The table of the node `me`. `find` looks an entry up on this host; `unsure` says which nodes may have some that
    it lacks."""

    def __init__(
        self,
        me: str,
        send: Send,
        find: Callable[[str, Stamp, KeyId], Entry | None],
        unsure: Callable[[str], Collection[str]],
        settle: float,
        now: float = 0.0,
    ) -> None:
        self._me = me
        self._send = send
        self._find = find
        self._unsure = unsure
        self._settle = settle
        self._members = Members({})
        self._changed = now
        self._serial = 0  # of searches
        self._peers: dict[str, _Peer] = {}
        self._stamps: dict[str, Stamp] = {}
        self._leases: dict[str, dict[KeyId, _Lease]] = {}
        self._stored: OrderedDict[tuple[str, KeyId], str] = OrderedDict()
        self._pending: OrderedDict[tuple[str, KeyId, str], tuple[m.Ask, float]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._leases.values())) + len(self._pending)

    # -- views

    def view(self, members: Members, now: float) -> None:
        """This node now sees these."""
        before, self._members, self._changed = self._members.instances, members, now
        lost = {name for name, instance in before.items() if members.instances.get(name) != instance}
        for name in lost:
            self._peers.pop(name, None)
        for key in [key for key in self._pending if key[2] in lost]:
            del self._pending[key]
        for place in [place for place, node in self._stored.items() if node in lost]:
            del self._stored[place]
        for cache, leases in self._leases.items():
            for key_id, lease in list(leases.items()):
                if members.owner(cache, key_id).name != self._me:
                    del leases[key_id]  # its holder tells the new owner; who waits asks there
                    continue
                for name in lost & lease.waiters.keys():
                    del lease.waiters[name]
                if lease.holder in lost:
                    self._pass_on(cache, key_id, lease, now)
                elif lost & lease.asked:
                    self._searched(cache, key_id, lease, lost, now)
        self._answer_pending(now)

    def told(self, peer: str, view: m.View, now: float) -> None:
        """What `peer` (or this node) sees, and all that it holds of this one."""
        if peer not in self._members:
            return
        known = self._peers.setdefault(peer, _Peer(since=now))
        if view.number <= known.number:
            return
        known.number = view.number
        if view.view != known.view:
            known.view, known.since = view.view, now
        listed: set[tuple[str, KeyId]] = set()
        for holding in view.holdings:
            stamp = Stamp(*holding.stamp)
            self.newest(holding.cache, stamp)
            if stamp != self._stamps.get(holding.cache):
                continue
            listed.add((holding.cache, holding.key_id))
            leases = self._leases.setdefault(holding.cache, {})
            lease = leases.get(holding.key_id)
            if lease is None and len(self) < LEASES_MAX:
                leases[holding.key_id] = _Lease(peer, holding.serial, now)
            elif lease is not None and lease.holder == peer:
                lease.serial = max(lease.serial, holding.serial)
        for cache, leases in self._leases.items():
            for key_id, lease in list(leases.items()):
                if lease.holder == peer and (cache, key_id) not in listed and now >= lease.granted + AUDIT_SECONDS:
                    self._pass_on(cache, key_id, lease, now)
        self._answer_pending(now)

    def newest(self, cache: str, stamp: Stamp) -> None:
        """There is this stamp: leases of smaller ones are void."""
        if stamp <= self._stamps.get(cache, Stamp(-1, b"", "")):
            return
        if cache not in self._stamps and len(self._stamps) >= CACHES_MAX:
            return
        before = self._stamps.get(cache)
        self._stamps[cache] = stamp
        for place in [place for place in self._stored if place[0] == cache]:
            del self._stored[place]
        for key_id, lease in self._leases.pop(cache, {}).items():
            for name, serial in lease.waiters.items():
                assert before is not None
                self._send(name, m.Alone(cache, before, key_id, serial))

    def tick(self, now: float) -> None:
        for cache, leases in self._leases.items():
            for key_id, lease in list(leases.items()):
                if not lease.holder and now >= lease.granted + self._settle:
                    self._pass_on(cache, key_id, lease, now)  # not answered: never mind
        self._answer_pending(now)

    def _settled(self, now: float) -> bool:
        for name in self._members.instances:
            peer = self._peers.get(name)
            if (peer is None or peer.view != self._members.hash) and now < self._old(peer):
                return False
        return True

    def _old(self, peer: _Peer | None) -> float:
        """When a disagreement with that peer's view ceases to count."""
        return max(self._changed, peer.since if peer is not None else 0.0) + self._settle

    # -- what is asked

    def ask(self, sender: str, ask: m.Ask, now: float) -> None:
        if sender not in self._members:
            return
        if self._may_answer(sender, ask, now, now):
            self._answer(sender, ask, now)
        elif (waits := self._pending.get((ask.cache, ask.key_id, sender))) is not None:
            self._pending[ask.cache, ask.key_id, sender] = (ask, waits[1])  # asked again: it has waited since then
        elif len(self) < LEASES_MAX:
            self._pending[ask.cache, ask.key_id, sender] = (ask, now)
        else:
            self._send(sender, m.Alone(ask.cache, ask.stamp, ask.key_id, ask.serial))

    def _may_answer(self, sender: str, ask: m.Ask, since: float, now: float) -> bool:
        if ask.view == self._members.hash:
            return self._settled(now)
        return now >= min(self._old(self._peers.get(sender)), since + self._settle)

    def _answer_pending(self, now: float) -> None:
        for key, (ask, since) in list(self._pending.items()):
            if self._may_answer(key[2], ask, since, now):
                del self._pending[key]
                self._answer(key[2], ask, now)

    def _answer(self, sender: str, ask: m.Ask, now: float) -> None:
        cache, key_id, stamp = ask.cache, ask.key_id, Stamp(*ask.stamp)
        if cache not in self._stamps and len(self._stamps) >= CACHES_MAX:
            self._send(sender, m.Alone(cache, stamp, key_id, ask.serial))
            return
        self.newest(cache, stamp)
        leases = self._leases.setdefault(cache, {})
        lease = leases.get(key_id)
        if stamp != self._stamps[cache]:
            self._send(sender, m.Alone(cache, stamp, key_id, ask.serial))
        elif lease is not None and lease.holder == sender:
            if ask.serial >= lease.serial:  # it does not know: an answer was lost, or crossed its ask
                lease.serial, lease.granted = ask.serial, now
                self._send(sender, m.Granted(cache, stamp, key_id, ask.serial))
        elif lease is not None:
            lease.waiters[sender] = max(ask.serial, lease.waiters.get(sender, 0))
            self._send(sender, m.Held(cache, stamp, key_id, ask.serial))
            if lease.holder:
                self._send(lease.holder, m.Want(cache, stamp, key_id, lease.serial))
        elif (entry := self._find(cache, stamp, key_id)) is not None:
            self._send(sender, Carry(m.Purpose.ANSWER, ask.serial, cache, stamp, entry))
        elif (node := self._whereabouts(cache, key_id, sender, ask.not_at)) is not None:
            self._send(sender, m.At(cache, stamp, key_id, ask.serial, node))
        elif len(self) >= LEASES_MAX:
            self._send(sender, m.Alone(cache, stamp, key_id, ask.serial))
        elif asked := set(self._unsure(cache)) & self._members.instances.keys() - {self._me, sender, ask.not_at}:
            self._serial += 1
            leases[key_id] = _Lease("", self._serial, now, {sender: ask.serial}, asked)
            self._send(sender, m.Held(cache, stamp, key_id, ask.serial))
            for name in sorted(asked):
                self._send(name, m.Fetch(cache, stamp, key_id, self._serial))
        else:
            leases[key_id] = _Lease(sender, ask.serial, now)
            self._send(sender, m.Granted(cache, stamp, key_id, ask.serial))

    def _whereabouts(self, cache: str, key_id: KeyId, sender: str, not_at: str) -> str | None:
        node = self._stored.get((cache, key_id))
        if node is not None and node in (sender, not_at):  # who has it does not ask: it has lost it
            del self._stored[cache, key_id]
            return None
        return node

    def not_here(self, sender: str, message: m.NotHere, now: float) -> None:
        """What was searched for is not at `sender`. (Or an asker's Fetch was answered: those have other serials.)"""
        lease = self._lease(message)
        if lease is not None and not lease.holder and lease.serial == message.serial:
            self._searched(message.cache, message.key_id, lease, {sender}, now)

    def found(self, sender: str, carry: Carry) -> None:
        """What was searched for has come, and has been delivered here."""
        lease = self._leases.get(carry.cache, {}).get(carry.entry.key_id)
        if lease is None or lease.holder or lease.serial != carry.number or carry.stamp != self._stamps[carry.cache]:
            return
        self._stored_at(carry.cache, carry.stamp, carry.entry.key_id, sender)

    def _searched(self, cache: str, key_id: KeyId, lease: _Lease, nodes: set[str], now: float) -> None:
        lease.asked -= nodes
        if not lease.asked:
            self._pass_on(cache, key_id, lease, now)

    # -- what becomes of it

    def withdraw(self, sender: str, message: m.Withdraw, now: float) -> None:
        pending = self._pending.get((message.cache, message.key_id, sender))
        if pending is not None and pending[0].serial <= message.serial:
            del self._pending[message.cache, message.key_id, sender]
        lease = self._lease(message)
        if lease is None:
            return
        if lease.waiters.get(sender, message.serial + 1) <= message.serial:
            del lease.waiters[sender]
        if lease.holder == sender and lease.serial == message.serial:
            self._pass_on(message.cache, message.key_id, lease, now)

    def done(self, sender: str, message: m.Done, now: float) -> None:
        lease = self._lease(message)
        if lease is None or lease.holder != sender or lease.serial != message.serial:
            return
        if not message.stored:
            self._pass_on(message.cache, message.key_id, lease, now)
            return
        self._stored_at(message.cache, Stamp(*message.stamp), message.key_id, sender)

    def _stored_at(self, cache: str, stamp: Stamp, key_id: KeyId, node: str) -> None:
        lease = self._leases[cache].pop(key_id)
        if node != self._me and self._find(cache, stamp, key_id) is None:
            # It is on its way, or there is no room for it here: the next who asks is sent to where it is.
            self._stored[cache, key_id] = node
            while len(self._stored) > LEASES_MAX:
                self._stored.popitem(last=False)
        for name, serial in lease.waiters.items():
            self._send(name, m.Finished(cache, stamp, key_id, serial, node))

    def outcome(self, sender: str, carry: Carry) -> None:
        """The holder's computation ended without an entry: those who wait get what it ended with."""
        leases = self._leases.get(carry.cache, {})
        lease = leases.get(carry.entry.key_id)
        if lease is None or carry.stamp != self._stamps.get(carry.cache):
            return
        if lease.holder == sender and lease.serial == carry.number:
            del leases[carry.entry.key_id]
            for name, serial in lease.waiters.items():
                self._send(name, carry._replace(purpose=m.Purpose.OUTCOME_DOWN, number=serial))

    def _lease(self, message: m.Withdraw | m.Done | m.NotHere) -> _Lease | None:
        if Stamp(*message.stamp) != self._stamps.get(message.cache):
            return None
        return self._leases.get(message.cache, {}).get(message.key_id)

    def _pass_on(self, cache: str, key_id: KeyId, lease: _Lease, now: float) -> None:
        """The holder is gone: the first who waits computes."""
        if not lease.waiters:
            del self._leases[cache][key_id]
            return
        lease.holder = next(iter(lease.waiters))
        lease.serial = lease.waiters.pop(lease.holder)
        lease.granted = now
        stamp = self._stamps[cache]
        self._send(lease.holder, m.Granted(cache, stamp, key_id, lease.serial))
        if lease.waiters:
            self._send(lease.holder, m.Want(cache, stamp, key_id, lease.serial))
