"""One cache on this host, as the sidecar has it: the Host of relay.py over a segment.

    doorbell thread ── look ── relay.ask, ended, withdrawn, moved        what workers have done
    relay ── grant, hold, want ── the flight's word                      answers: no lock, on the event loop
    relay ── deliver, adopt ── one thread of the host's own              what may wait for a lock, or runs a callback

The host attaches when there is a segment, follows when it is destroyed and made again, and makes none itself. All of
its state is the event loop's, but for what the thread is handed.

What if the sidecar dies: nothing here matters. What if its event loop hangs: it looks no more, and after lease_timeout
the workers do without it (csrc/lease.h).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final, NamedTuple

from ..config import CacheConfig
from ..errors import CoopshmError
from . import segment as seg
from .attached import Attached, Flight, flip, passing, storing
from .keyids import is_digest, key_id_of
from .relay import (
    Batch,
    Delivered,
    Ended,
    Entry,
    KeyId,
    Kind,
    MovedError,
    NodeState,
    Origin,
    Relay,
    StaleError,
    Stamp,
    Standing,
)
from .segment import Candidate, Event, LogEntry, SidecarSegment

__all__ = ["SegmentHost"]

log = logging.getLogger("coopshm")

#: How often it is tried to attach while there is no segment, in seconds: so long the first values of a new segment are
#: computed without the cluster.
_RETRY: Final = 0.2

#: Looks between two looks whether the object still has its name.
_LINKED_EVERY: Final = 20

#: Outcomes up to this size are read on the event loop, in bytes.
_SMALL: Final = 64 * 1024

#: Entries of the log that are looked through for long keys at once: some milliseconds.
_DIGESTED_AT_ONCE: Final = 1000

#: Peers that the segment has records for.
_PEERS: Final = 64


class _Lease(NamedTuple):
    """A flight that the cluster was asked about."""

    flight: int
    serial: int
    stamp: Stamp
    nested: bool = False


class SegmentHost:
    """The Host of one cache; see relay.py for what its methods promise."""

    def __init__(self, namespace: str, config: CacheConfig, node: str, lease_timeout: float, relay: Relay) -> None:
        """
        Args:
            config: the cache's; of it `on_reset` is used, and who may own the segment.
            node: this node's name.
            lease_timeout: seconds that workers wait for an answer, and for a sidecar that does not run.
        """
        self.name = config.name
        self._config = config
        self._node = node
        self._candidate = Candidate(namespace, config, node, lease_timeout)
        self._relay = relay
        self._at: Attached | None = None
        self._standing: Standing | None = None
        self._told: Standing | None = None  # what the relay has been told of
        self._adopting = False
        self._looks_soon = False
        self._leases: dict[KeyId, _Lease] = {}
        self._granted: set[tuple[int, int]] = set()  # of them, by flight and serial
        self._key_ids: dict[tuple[int, int], KeyId] = {}  # by flight and serial
        self._digests: dict[KeyId, bytes] = {}  # long keys of the generation's log, and how far that was read
        self._digested = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._peers: dict[str, int] = {}  # which of the segment's records is whose
        self._states: dict[str, NodeState] = {}
        self._reads: set[asyncio.Task[None]] = set()
        self._refusal = ""
        self._gone = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # ---- life

    async def start(self) -> None:
        """Attach now if there is a segment, and from now on whenever there is one."""
        await self._attach()
        self._task = asyncio.create_task(self._follow(), name=f"coopshm-follow-{self.name}")

    async def stop(self) -> None:
        """Let go of the segment: workers go on without the cluster, at once."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._detach()
        self._candidate.close()

    async def _follow(self) -> None:
        while True:
            if self._at is None:
                await asyncio.sleep(_RETRY)
                await self._attach()
            else:
                await self._gone.wait()
                log.info("cache %r: the segment is gone (destroyed, or its object was removed)", self.name)
                await self._detach()

    async def _attach(self) -> None:
        try:
            segment = await self._open()
        except FileNotFoundError:
            self._refusal = ""
            return
        except CoopshmError as exc:
            if str(exc) != self._refusal:  # once
                self._refusal = str(exc)
                log.error("%s; the cluster does without this host's cache until this is mended", exc)
            return
        self._refusal = ""
        self._gone.clear()
        self._at = Attached(segment, self._look)
        self._note(self._at)
        for node, state in self._states.items():  # of a new segment's resets, of which there was none, they have all
            self._note_peer(self._at, node, 0, state)
        self._at.start()
        log.info("%s: attached as the sidecar of node %s", segment.label, self._node)
        self._tell_moved()

    async def _open(self) -> SidecarSegment:
        opening = asyncio.create_task(asyncio.to_thread(self._candidate.open))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread goes on. What comes of it is closed when it is there, and nothing is under its hands.
            with contextlib.suppress(FileNotFoundError, CoopshmError):
                await asyncio.to_thread((await opening).close)
            raise

    async def _detach(self) -> None:
        at, self._at = self._at, None
        if at is None:
            return
        self._standing = None
        self._forget_all()
        self._wake()
        await at.close()
        self._tell_moved()

    def _tell_moved(self) -> None:
        if self._told != self._standing:
            self._told = self._standing
            self._relay.moved(self.name)

    def _forget_all(self) -> None:
        self._leases.clear()
        self._granted.clear()
        self._key_ids.clear()
        self._digests.clear()
        self._digested = 0
        self._peers.clear()

    # ---- what workers have done

    def _look_soon(self) -> None:
        if not self._looks_soon:
            self._looks_soon = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._looks_soon = False
        at = self._at
        if at is None:
            return
        at.looked()
        self._refresh(at)
        events = at.segment.look()
        if events is None or (at.looks % _LINKED_EVERY == 0 and at.segment.segment.gone()):
            self._gone.set()
            return
        # What is over comes first: a new question may be about the same key.
        for event in events:
            if event.kind != seg.ASK:
                self._over(at, event)
        self._refresh(at)
        self._tell_moved()
        for event in events:
            if event.kind == seg.ASK:
                self._asked(event)
        if self._digests:
            self._digest(at)
        self._wake()

    def _asked(self, event: Event) -> None:
        standing = self._standing
        if standing is None or event.generation != standing.generation:
            return  # void, and withdrawn with the next look
        key_id, flight = event.key_id, (event.flight, event.serial)
        former = self._leases.get(key_id)
        if former is not None and former[:2] != flight:
            self._key_ids.pop(former[:2], None)
            self._granted.discard(former[:2])
        self._leases[key_id] = _Lease(*flight, standing.stamp, event.nested)
        self._key_ids[flight] = key_id
        self._relay.ask(self.name, standing.stamp, key_id, event.nested)

    def _over(self, at: Attached, event: Event) -> None:
        key_id = self._key_ids.pop((event.flight, event.serial), None)
        if key_id is None:
            return
        lease = self._leases.pop(key_id)
        granted = lease[:2] in self._granted
        self._granted.discard(lease[:2])
        if event.kind == seg.WITHDRAW and granted:  # too late: the core does not know of it
            self._relay.ended(self.name, lease.stamp, key_id, self._whether_stored(lease.stamp, key_id))
        elif event.kind == seg.WITHDRAW:
            self._relay.withdrawn(self.name, lease.stamp, key_id)
        elif event.kind == seg.OUTCOME and event.call is not None:
            if event.call.waiter.outcome_bytes <= _SMALL:
                self._ended(lease.stamp, key_id, at.segment.segment.outcome(event.call))
            else:
                task = asyncio.create_task(self._read_outcome(at, event, lease.stamp, key_id))
                self._reads.add(task)
                task.add_done_callback(self._reads.discard)
        else:
            stored = event.kind == seg.STORED
            self._relay.ended(self.name, lease.stamp, key_id, Ended.STORED if stored else Ended.ABANDONED)

    async def _read_outcome(self, at: Attached, event: Event, stamp: Stamp, key_id: KeyId) -> None:
        call = event.call
        assert call is not None
        self._ended(stamp, key_id, await at.worker.do(lambda: at.segment.segment.outcome(call)))

    def _ended(self, stamp: Stamp, key_id: KeyId, outcome: tuple[int, int, bytes] | None) -> None:
        if outcome is None:  # lost: overwritten before it was read
            self._relay.ended(self.name, stamp, key_id, Ended.ABANDONED)
            return
        number, format, payload = outcome
        kind, key = Kind(number), key_id
        if is_digest(key_id):
            # A value for which there was no room. Nobody can store it without its key, so it is one that is not stored.
            kind, key = Kind.UNCACHED if kind is Kind.VALUE else kind, b""
        self._relay.ended(self.name, stamp, key_id, Entry(key_id, key, format, kind, payload))

    # ---- where it stands

    def standing(self) -> Standing | None:
        if self._at is not None:
            self._refresh(self._at)
        return self._standing

    def _refresh(self, at: Attached) -> None:
        if self._adopting:
            return
        if self._standing is None or at.segment.generation() != self._standing.generation:
            self._note(at)

    def _note(self, at: Attached) -> None:
        self._standing = at.stamp()
        self._digests.clear()
        self._digested = 0

    def _generation_of(self, stamp: Stamp) -> int | None:
        standing = self.standing()
        return standing.generation if standing is not None and standing.stamp == stamp else None

    async def adopt(self, stamp: Stamp, instead_of: Standing) -> None:
        at = self._at
        if at is None or self.standing() != instead_of:
            raise MovedError
        # Until the caller goes on, in the same step of the loop, nobody is told of the new standing: the relay has
        # to note first what the adopted stamp includes, or it would take it for a reset that a worker made.
        self._adopting = True
        at.segment.keep()
        try:
            await asyncio.to_thread(flip, at, self._config, stamp, instead_of)
        finally:
            self._adopting = False
            self._look_soon()

    def acknowledged(self, node: str, covers: int, state: NodeState) -> None:
        self._states[node] = state
        if len(self._states) > _PEERS:  # names come and go: the record of one that is away is for another
            away = next((name for name, each in self._states.items() if each is NodeState.AWAY), None)
            if away is not None:
                del self._states[away]
                self._peers.pop(away, None)
        if self._at is not None and node in self._states:
            self._note_peer(self._at, node, covers, state)

    def _note_peer(self, at: Attached, node: str, covers: int, state: NodeState) -> None:
        if node not in self._peers:
            free = next((number for number in range(_PEERS) if number not in self._peers.values()), None)
            if free is None:
                return
            self._peers[node] = free
        at.segment.note_peer(self._peers[node], node, covers, int(state))

    # ---- answers

    def _lease(self, stamp: Stamp, key_id: KeyId) -> _Lease | None:
        lease = self._leases.get(key_id)
        return lease if lease is not None and lease.stamp == stamp and self._at is not None else None

    def grant(self, stamp: Stamp, key_id: KeyId) -> None:
        lease = self._lease(stamp, key_id)
        if lease is not None and self._at is not None:
            # Too late, if it is false: its end is under way, and will be told as that of what was granted.
            self._at.segment.grant(lease.flight, lease.serial)
            self._granted.add(lease[:2])
        else:
            asyncio.get_running_loop().call_soon(self._granted_late, stamp, key_id)

    def _granted_late(self, stamp: Stamp, key_id: KeyId) -> None:
        if key_id not in self._leases:  # else it was asked for anew, and that has an end of its own
            self._relay.ended(self.name, stamp, key_id, self._whether_stored(stamp, key_id))

    def _whether_stored(self, stamp: Stamp, key_id: KeyId) -> Ended:
        return Ended.STORED if self.find(stamp, key_id) is not None else Ended.ABANDONED

    def hold(self, stamp: Stamp, key_id: KeyId) -> None:
        lease = self._lease(stamp, key_id)
        if lease is not None and self._at is not None:
            self._at.segment.hold(lease.flight, lease.serial)

    def want(self, stamp: Stamp, key_id: KeyId) -> None:
        lease = self._lease(stamp, key_id)
        if lease is not None and self._at is not None:
            self._at.segment.want(lease.flight, lease.serial)
            self._look_soon()  # which queues for the outcome

    # ---- entries

    async def deliver(self, stamp: Stamp, entry: Entry) -> Delivered:
        while True:
            at = self._at
            if at is None:
                return Delivered.GONE
            generation = self._generation_of(stamp)
            if generation is None:
                return Delivered.STALE
            lease = self._lease(stamp, entry.key_id)
            if entry.kind is Kind.VALUE and key_id_of(entry.key) != entry.key_id:
                done, taken = Delivered.GONE, None  # of another key than it says: nobody could be answered with it
            elif entry.kind is Kind.VALUE:
                done, taken = await at.worker.do(storing(at.segment, generation, entry))
            elif lease is None:
                return Delivered.UNWANTED
            else:
                done, taken = await at.worker.do(passing(at.segment, lease.flight, lease.serial, entry))
            if taken is not None and self._answered(entry.key_id, taken, done) and done is Delivered.FULL:
                done = Delivered.PASSED
            if done in (Delivered.STORED, Delivered.PASSED):
                self._wake()
            if done is not Delivered.STALE or self._generation_of(stamp) in (None, generation):
                self._not_answered(stamp, entry.key_id, done)
                return done
            # A cold start: the same stamp, and another generation.

    def _answered(self, key_id: KeyId, taken: Flight, done: Delivered) -> bool:
        """The flight was taken for what was delivered: the core tells no more of it. Whether it was asked for."""
        lease = self._leases.get(key_id)
        if lease is None or lease[:2] != taken:
            return False
        del self._leases[key_id]
        self._key_ids.pop(taken, None)
        if taken in self._granted:  # and not yet taken over
            self._granted.discard(taken)
            ended = Ended.STORED if done is Delivered.STORED else Ended.ABANDONED
            asyncio.get_running_loop().call_soon(self._relay.ended, self.name, lease.stamp, key_id, ended)
        return True

    def _not_answered(self, stamp: Stamp, key_id: KeyId, done: Delivered) -> None:
        """Something was delivered, and the relay will take it for the answer to all who asked for that key. A flight
        that began after the one that it ended, and before the loop came here, has no answer: ask for it anew, after the
        relay."""
        lease = self._lease(stamp, key_id)
        if lease is not None and lease[:2] not in self._granted and done is not Delivered.GONE:  # else it is granted
            asyncio.get_running_loop().call_soon(self._ask_anew, key_id, lease)

    def _ask_anew(self, key_id: KeyId, lease: _Lease) -> None:
        if self._leases.get(key_id) == lease and lease[:2] not in self._granted:
            self._relay.ask(self.name, lease.stamp, key_id, lease.nested)

    def find(self, stamp: Stamp, key_id: KeyId) -> Entry | None:
        generation = self._generation_of(stamp)
        if generation is None or self._at is None:
            return None
        key: bytes | None = key_id
        if is_digest(key_id):
            self._digest(self._at)
            key = self._digests.get(key_id)
        found = self._at.segment.find(generation, key) if key is not None else None
        return _entry(found) if found is not None else None

    def _digest(self, at: Attached) -> None:
        """Read on in the log, for the sake of its long keys; some at a time, and on with each look."""
        generation = at.segment.generation()
        if self._standing is None or generation != self._standing.generation:
            return
        for _ in range(_DIGESTED_AT_ONCE):
            found = at.segment.entry(generation, False, self._digested)
            if not isinstance(found, LogEntry):
                return
            self._digested = found.position + 1
            key_id = key_id_of(found.key)
            if is_digest(key_id):
                self._digests[key_id] = found.key

    async def read(self, generation: int, position: int, origin: Origin, max_bytes: int, max_entries: int) -> Batch:
        at = self._at
        if at is None or at.segment.generation() != generation:
            raise StaleError
        entries: list[tuple[int, Entry]] = []
        size = 0
        while len(entries) < max_entries and (size < max_bytes or not entries):
            found = at.segment.entry(generation, origin is Origin.LOCAL, position)
            if found is None:
                raise StaleError
            if not isinstance(found, LogEntry):
                return Batch(entries, found, end=True)
            entries.append((found.position, _entry(found)))
            size += len(found.key) + len(found.payload)
            position = found.position + 1
        return Batch(entries, position, end=False)

    async def changed(self, generation: int, position: int) -> None:
        while True:
            at = self._at
            if at is None or not isinstance(at.segment.entry(generation, False, position), int):
                return
            woken = asyncio.get_running_loop().create_future()
            self._waiting.add(woken)
            try:
                await woken
            finally:
                self._waiting.discard(woken)

    def _wake(self) -> None:
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)


def _entry(found: LogEntry) -> Entry:
    return Entry(key_id_of(found.key), found.key, found.format, Kind.VALUE, found.payload)
