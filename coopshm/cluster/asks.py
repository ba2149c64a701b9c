"""The asker's side of leases: what this host's workers want to compute, and what the owner nodes said. Pure, as
leases.py.

A *wish* is one key that was asked for here: ASKED (no answer yet), HELD (somebody else computes), or GRANTED (a worker
of this host does). It ends when the entry or an outcome arrives, when the granted computation ends, when nobody here
waits any more, or with its stamp. Each ask has a serial, which answers carry: what is answered to another is refused,
by giving it back.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from . import messages as m
from .leases import Carry, Send
from .relay import Ended, Entry, KeyId, Stamp
from .views import Member, Members

__all__ = ["Asker", "Effects"]

#: Seconds after which an unanswered ask, and one that is told to wait, are sent again.
ASK_AGAIN_SECONDS = 1.0
CONFIRM_SECONDS = 5.0


class _State(enum.Enum):
    ASKED = 0
    HELD = 1
    GRANTED = 2


@dataclass
class _Wish:
    stamp: Stamp
    serial: int
    owner: Member
    state: _State
    again: float  # when to ask again, unless GRANTED
    until: float  # of a nested one: when to compute whatever is said; else infinity
    wanted: bool = False
    not_at: str = ""


@dataclass
class Effects:
    """What is done on this host: Host's methods, with the cache's name before their arguments."""

    grant: Callable[[str, Stamp, KeyId], None]
    hold: Callable[[str, Stamp, KeyId], None]
    want: Callable[[str, Stamp, KeyId], None]
    follows: Callable[[str, str], bool]  #: whether this host follows the log of (node, cache)


class Asker:
    """The wishes of the node `me`."""

    def __init__(self, me: str, send: Send, effects: Effects, lease_timeout: float) -> None:
        self._me = me
        self._send = send
        self._do = effects
        self._lease_timeout = lease_timeout
        self._members = Members({})
        self._number = 0  # of views
        self._serial = 0
        self._wishes: dict[tuple[str, KeyId], _Wish] = {}

    def __len__(self) -> int:
        return len(self._wishes)

    # -- views

    def view(self, members: Members, now: float) -> None:
        """This node now sees these: tell them, with what is held of each; then ask anew what is not answered."""
        self._members = members
        anew = []
        for (cache, key_id), wish in self._wishes.items():
            owner = members.owner(cache, key_id)
            if wish.state is _State.ASKED or (wish.state is _State.HELD and owner != wish.owner):
                anew.append((cache, key_id, wish))
            wish.owner = owner
        self.tell()
        for cache, key_id, wish in anew:
            self._ask(cache, key_id, wish, now)

    def tell(self) -> None:
        """Send the view to all. To be repeated now and then."""
        self._number += 1
        held: dict[str, list[m.Holding]] = {name: [] for name in self._members.instances}
        for (cache, key_id), wish in self._wishes.items():
            if wish.state is _State.GRANTED and len(held[wish.owner.name]) < m.HOLDINGS_MAX:
                held[wish.owner.name].append(m.Holding(cache, wish.stamp, key_id, wish.serial))
        for name, holdings in held.items():
            self._send(name, m.View(self._number, self._members.hash, holdings))

    # -- what workers want

    def ask(self, cache: str, stamp: Stamp, key_id: KeyId, nested: bool, now: float) -> None:
        until = now + self._lease_timeout if nested else float("inf")
        wish = self._wishes.get((cache, key_id))
        if wish is not None and wish.stamp == stamp and wish.state is not _State.GRANTED:
            wish.until = min(wish.until, until)
            if wish.state is _State.HELD:  # it may be another flight's by now
                self._do.hold(cache, stamp, key_id)
            return
        owner = self._members.owner(cache, key_id)
        wish = self._wishes[cache, key_id] = _Wish(stamp, 0, owner, _State.ASKED, 0.0, until)
        self._ask(cache, key_id, wish, now)

    def _ask(self, cache: str, key_id: KeyId, wish: _Wish, now: float) -> None:
        self._serial += 1
        wish.serial, wish.state, wish.again = self._serial, _State.ASKED, now + ASK_AGAIN_SECONDS
        self._send_ask(cache, key_id, wish)

    def _send_ask(self, cache: str, key_id: KeyId, wish: _Wish) -> None:
        ask = m.Ask(cache, wish.stamp, key_id, wish.serial, self._members.hash, wish.not_at)
        self._send(wish.owner.name, ask)

    def ended(self, cache: str, stamp: Stamp, key_id: KeyId, outcome: Entry | Ended) -> None:
        wish = self._wishes.get((cache, key_id))
        if wish is None or wish.stamp != stamp or wish.state is not _State.GRANTED:
            return
        del self._wishes[cache, key_id]
        if isinstance(outcome, Ended):
            self._send(wish.owner.name, m.Done(cache, stamp, key_id, wish.serial, outcome is Ended.STORED))
        else:
            self._send(wish.owner.name, Carry(m.Purpose.OUTCOME_UP, wish.serial, cache, stamp, outcome))

    def withdrawn(self, cache: str, stamp: Stamp, key_id: KeyId) -> None:
        wish = self._wishes.get((cache, key_id))
        if wish is not None and wish.stamp == stamp and wish.state is not _State.GRANTED:
            self._give_up(cache, key_id, wish)

    def _give_up(self, cache: str, key_id: KeyId, wish: _Wish) -> None:
        del self._wishes[cache, key_id]
        self._send(wish.owner.name, m.Withdraw(cache, wish.stamp, key_id, wish.serial))

    def moved(self, cache: str, stamp: Stamp | None) -> None:
        """The cache stands there now: wishes of other stamps are over, and leases of theirs void."""
        for key in [key for key, wish in self._wishes.items() if key[0] == cache and wish.stamp != stamp]:
            del self._wishes[key]

    def restarted(self, cache: str) -> None:
        """The cache is another one, under the same stamp: what its processes wanted and held is void."""
        for key_id, wish in [(key[1], wish) for key, wish in self._wishes.items() if key[0] == cache]:
            self._give_up(cache, key_id, wish)

    def arrived(self, cache: str, stamp: Stamp, key_id: KeyId) -> None:
        """The entry or an outcome has been delivered."""
        wish = self._wishes.get((cache, key_id))
        if wish is not None and wish.stamp == stamp and wish.state is not _State.GRANTED:
            self._give_up(cache, key_id, wish)

    def undeliverable(self, cache: str, stamp: Stamp, key_id: KeyId) -> None:
        """It has come, and could not be handed over: let the worker compute."""
        wish = self._wishes.get((cache, key_id))
        if wish is not None and wish.stamp == stamp and wish.state is not _State.GRANTED:
            self._alone(cache, key_id, wish)

    # -- what owner nodes say

    def hear(self, sender: str, message: m.Granted | m.Held | m.Alone | m.At | m.Finished, now: float) -> None:
        cache, key_id = message.cache, message.key_id
        wish = self._wishes.get((cache, key_id))
        # Who was said to have it may say that it cannot be sent.
        answers = wish is not None and sender in (wish.owner.name, wish.not_at if isinstance(message, m.Alone) else "")
        known = wish is not None and wish.serial == message.serial and answers
        if wish is None or not known or wish.stamp != message.stamp:
            if isinstance(message, m.Granted):
                self._send(sender, m.Withdraw(cache, message.stamp, key_id, message.serial))
        elif wish.state is _State.GRANTED:
            pass  # repeated
        elif isinstance(message, m.Granted):
            wish.state, wish.wanted, wish.not_at = _State.GRANTED, False, ""
            self._do.grant(cache, wish.stamp, key_id)
        elif isinstance(message, m.Held):
            wish.again = now + CONFIRM_SECONDS
            if wish.state is _State.ASKED:
                wish.state = _State.HELD
                self._do.hold(cache, wish.stamp, key_id)
        elif isinstance(message, m.Alone):
            del self._wishes[cache, key_id]
            self._do.grant(cache, wish.stamp, key_id)
        elif isinstance(message, m.At):
            wish.again = now + ASK_AGAIN_SECONDS
            wish.not_at = message.node  # should it not be there after all
            if message.node in self._members:
                self._send(message.node, m.Fetch(cache, wish.stamp, key_id, wish.serial))
            else:
                self._ask(cache, key_id, wish, now)
        else:  # Finished
            wish.state = _State.ASKED
            if self._do.follows(message.node, cache):
                wish.again = now + ASK_AGAIN_SECONDS  # on its way; arrived() will come before
            else:
                self._ask(cache, key_id, wish, now)

    def not_here(self, message: m.NotHere, now: float) -> None:
        wish = self._wishes.get((message.cache, message.key_id))
        if wish is not None and wish.serial == message.serial and wish.state is _State.ASKED:
            self._ask(message.cache, message.key_id, wish, now)

    def want(self, sender: str, message: m.Want) -> None:
        wish = self._wishes.get((message.cache, message.key_id))
        if wish is None or wish.serial != message.serial or wish.owner.name != sender:
            return
        if wish.state is _State.GRANTED and not wish.wanted:
            wish.wanted = True
            self._do.want(message.cache, wish.stamp, message.key_id)

    def _alone(self, cache: str, key_id: KeyId, wish: _Wish) -> None:
        self._give_up(cache, key_id, wish)
        self._do.grant(cache, wish.stamp, key_id)

    def tick(self, now: float) -> None:
        for (cache, key_id), wish in list(self._wishes.items()):
            if wish.state is _State.GRANTED:
                continue
            if now >= wish.until:
                self._alone(cache, key_id, wish)
            elif now >= wish.again:
                wish.again = now + (ASK_AGAIN_SECONDS if wish.state is _State.ASKED else CONFIRM_SECONDS)
                self._send_ask(cache, key_id, wish)
