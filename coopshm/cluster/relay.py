"""The seam of the cluster: between a host's segments (Host) and what connects the hosts (Relay).

A sidecar has one Host for each cache and one Relay. All of it runs on one event loop: methods that are not coroutines
return at once. A relay may call a Host from within its own methods (`ask` may `grant`); a Host calls a relay from its
own tasks only, never from within a method of its own.

    workers ── segment ── Host ── Relay ── network ── Relay ── Host ── segment ── workers

Words. A *stamp* says which reset a cache stands at; larger stamps win, and what was computed under another stamp is
never accepted. A *key id* stands for a key in the cluster: the encoded key if that has at most 96 bytes, else a digest.
It is compared, never decoded. A worker that misses a key makes its host *ask* for the cluster's *lease* on it. The
relay answers by exactly one of `grant` (the worker computes), `hold` (somebody else does; wait) and `deliver` (here it
is); after `hold` comes `deliver` or `grant`. An answer may be late or never come: the segment lets the worker compute
after `lease_timeout`, so a relay need not be perfect to be harmless, and a host must accept answers that nobody waits
for any more.

What is "own". A host that has made a reset must not accept what was computed elsewhere before it, and a stamp alone
does not say so: two hosts that reset at the same time make two stamps, one of which wins. Therefore a relay keeps, for
each stamp, which resets of which hosts it includes (stamps.py), and a host tells the counter of the last reset that was
made on it. `origin` names the maker: the node *and* the segment, since a host that has lost its segment (a reboot)
counts from 0 again and must not be mistaken for its former self. It is known before any sidecar runs (two hosts that
reset before their first contact must not make equal stamps).
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

__all__ = [
    "KEY_ID_BYTES_MAX",
    "Batch",
    "CacheStatus",
    "Delivered",
    "Ended",
    "Entry",
    "Host",
    "KeyId",
    "Kind",
    "MovedError",
    "NodeState",
    "NodeStatus",
    "Origin",
    "Relay",
    "ResetFailedError",
    "StaleError",
    "Stamp",
    "Standing",
    "Status",
]

KeyId = bytes

#: Longest key id, in bytes: csrc/layout.h keeps as much of a key with its flight.
KEY_ID_BYTES_MAX = 96


class Stamp(NamedTuple):
    """Which reset a cache stands at. Compared as the tuple it is; the larger one wins.

    A segment that was never reset has counter 0 and node "": all those of one configured version are equal.
    """

    counter: int  #: 64 bits, +1 with each reset
    version: bytes  #: of the source, canonical JSON (coopshm.versions)
    node: str  #: origin of the reset


class Standing(NamedTuple):
    """Where a cache stands on this host, all of it read at one moment."""

    stamp: Stamp
    origin: str  #: who a reset made on this host is by: node name and segment, at most 80 characters
    own: int  #: counter of the last reset made on this host (in this segment), 0 for none
    generation: int  #: of the segment: another one, even under the same stamp, means an empty cache and a new log


class Kind(enum.IntEnum):
    """What a payload is to those who wait for it: csm_kind. Only VALUE is stored."""

    VALUE = 0
    UNCACHED = 1
    FAILURE = 2
    UNSHAREABLE = 3


class Entry(NamedTuple):
    """A key and what became of it. A memoryview as payload is pinned until it is dropped: do not keep it for long."""

    key_id: KeyId
    key: bytes  #: the whole encoded key. May be b"" with an outcome (kind other than VALUE): those go by key_id
    format: int
    kind: Kind
    payload: bytes | memoryview


class Batch(NamedTuple):
    """Entries of the commit log, in its order."""

    entries: Sequence[tuple[int, Entry]]  #: each with its position
    position: int  #: to go on reading from
    end: bool  #: nothing more was there


class Origin(enum.Enum):
    """Which entries of the log to read: those that workers of this host stored, or all."""

    LOCAL = "local"
    ALL = "all"


class Delivered(enum.Enum):
    """What became of a delivered entry."""

    STORED = "stored"
    KNOWN = "known"  #: was there already
    JOINED = "joined"  #: a worker of this host is computing it
    PASSED = "passed"  #: not for storing, or no room; those who waited for it have it
    UNWANTED = "unwanted"  #: not for storing, and nobody waits
    STALE = "stale"  #: of another stamp than the cache's at the moment of publishing
    FULL = "full"  #: no room for it, and nobody waited
    GONE = "gone"  #: not now: the host does not have the cache, its lock's holder is stopped, or too much is computed


class Ended(enum.Enum):
    """How a granted computation ended without an outcome to pass on."""

    STORED = "stored"  #: the entry is in the log
    ABANDONED = "abandoned"  #: its process died or gave up, or the outcome could not be had: somebody else may compute


class NodeState(enum.IntEnum):
    """What another node is to a cache."""

    AWAY = 0  #: not connected
    ABSENT = 1  #: connected, does not have the cache
    BEHIND = 2  #: connected, has not applied this stamp yet
    FAILING = 3  #: connected, its on_reset callback raises; it goes on trying
    LIVE = 4  #: connected, at this stamp


class StaleError(Exception):
    """The generation asked for is over."""


class MovedError(Exception):
    """The cache no longer stands where the caller believed; look again."""


class ResetFailedError(Exception):
    """The on_reset callback of this host raised (`__cause__`), or the reset lock could not be had. Nothing has
    changed."""


class Host(Protocol):
    """One cache on this host. All methods are called on the event loop."""

    def standing(self) -> Standing | None:
        """Where the cache stands; None while no process on this host has it. Cheap."""

    async def adopt(self, stamp: Stamp, instead_of: Standing) -> None:
        """Bring the cache to `stamp`: run the on_reset callback with its version, flip the generation.

        If `stamp.node` is this host's origin, this is a reset made here (`own` becomes `stamp.counter`).

        Raises:
            MovedError: the cache did not stand at `instead_of` (stamp, origin and generation) once the reset lock was
            had,
                or is gone.
            ResetFailedError: the callback raised. Nothing changed.
        """

    async def deliver(self, stamp: Stamp, entry: Entry) -> Delivered:
        """Store a value if the cache stands at `stamp` when it is published, marked as of remote origin; pass values
        and outcomes to the flight that waits for the key, if one does. Never raises for what was delivered."""

    def find(self, stamp: Stamp, key_id: KeyId) -> Entry | None:
        """The stored entry of a key; None if there is none, or the cache does not stand at `stamp`."""

    async def read(self, generation: int, position: int, origin: Origin, max_bytes: int, max_entries: int) -> Batch:
        """Entries of the commit log from `position` (0: all) on, at least one if there is one, payloads as pinned
        views.

        Raises:
            StaleError: `generation` is over.
        """

    async def changed(self, generation: int, position: int) -> None:
        """Return when the log has entries of either origin from `position` on, or `generation` is over."""

    def grant(self, stamp: Stamp, key_id: KeyId) -> None:
        """The worker that asked may compute; `ended` will tell how that went. Each grant has its `ended`, also one that
        comes too late, since nobody waits any more or the entry has come meanwhile: who waits for a lease that nobody
        gives back has no time limit."""

    def hold(self, stamp: Stamp, key_id: KeyId) -> None:
        """Somebody else computes: wait on, without a time limit."""

    def want(self, stamp: Stamp, key_id: KeyId) -> None:
        """Others wait for what was granted: its outcome is to be kept for `ended`, should it not be stored."""

    def acknowledged(self, node: str, covers: int, state: NodeState) -> None:
        """What `node` has of this cache, as of now. `covers`: the last reset made on this host (its counter) that the
        node's present stamp includes: it holds nothing that was computed before. For `reset(wait=...)` and the status
        page."""


class CacheStatus(NamedTuple):
    stamp: Stamp | None  #: None: absent
    state: NodeState


class NodeStatus(NamedTuple):
    name: str  #: "" until it has said it
    addresses: Sequence[str]
    connected: bool  #: in both directions, and answering
    since: float  #: seconds since the Epoch
    caches: Mapping[str, CacheStatus]
    error: str  #: why it is not connected, or what the last connection ended with


class Status(NamedTuple):
    name: str
    nodes: Sequence[NodeStatus]
    counters: Mapping[str, int]


class Relay(ABC):
    """Connects the hosts of a cluster. One object per sidecar; all methods are called on the event loop.

    Methods that take a stamp ignore what is not of the cache's present stamp, and what they have been told before.
    """

    @abstractmethod
    async def start(self, hosts: Mapping[str, Host]) -> None:
        """Listen, and begin to connect; `hosts` by cache name. Returns once listening; nodes that are down are no
        error."""

    @abstractmethod
    async def stop(self, drain: float) -> None:
        """Hand on what is not yet sent, for at most `drain` seconds, then close everything."""

    @abstractmethod
    def ask(self, cache: str, stamp: Stamp, key_id: KeyId, nested: bool) -> None:
        """A worker wants to compute `key_id`. Called again with `nested` when a computation has come to wait for a key
        that was asked before: such a wait might be one of a cycle across hosts, and is ended by `grant` after
        `lease_timeout`."""

    @abstractmethod
    def ended(self, cache: str, stamp: Stamp, key_id: KeyId, outcome: Entry | Ended) -> None:
        """A granted computation ended. STORED: its entry goes out with the log. An Entry: an outcome for those who
        wait."""

    @abstractmethod
    def withdrawn(self, cache: str, stamp: Stamp, key_id: KeyId) -> None:
        """What was asked (and not granted) is not waited for any more: its waiters left, or compute without the
        lease."""

    @abstractmethod
    def moved(self, cache: str) -> None:
        """The standing of a cache has changed in whatever way: reset here, started cold, created, destroyed. (Also
        after `adopt`, where it is redundant.)"""

    @abstractmethod
    def status(self) -> Status:
        """What is known of the other nodes, and what was counted."""

    @abstractmethod
    async def reload(self, nodes: Sequence[str]) -> None:
        """Go on with these node addresses instead of those given before. Connections to nodes of both stay."""
