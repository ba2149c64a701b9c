"""The commit log of this host into the engine.

First everything that the host has, whoever computed it: the engine may have been flushed or replaced, and this host may
be the only one that has it. Keys are offered, and what is missing is written. Then what workers of this host store, as
they store it. There is no queue: the log is there anyway, and where this was in it is kept across losses of the engine.

What if the sidecar dies here: the next one begins from the log's beginning, and offers. What if the engine forgets what
it has acknowledged: it is another epoch then (lua/beat.lua), and so another generation, into which all hosts offer what
they have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import NamedTuple

from ..relay import Entry, KeyId, Origin, StaleError
from ..waits import end
from .connection import BULK, FullError, LostError, Reply
from .context import Context, Current
from .entries import PIECE_BYTES, kept, piece_field, pieces_of
from .sayings import Stored
from .scripts import LACKS, PIECE, WRITE
from .standing import Standings
from .wishes import Wishes

__all__ = ["Writing"]

#: Payload bytes and entries of one read: they are pinned until written.
READ_BYTES_MAX = 1024 * 1024
READ_ENTRIES_MAX = 256


class _VoidError(Exception):
    """The generation is over in the engine."""


class _Place(NamedTuple):
    """How far the log was written, and whether only what is computed here is."""

    current: Current
    position: int
    origin: Origin


class Writing:
    """Of one cache."""

    def __init__(self, context: Context, standings: Standings, wishes: Wishes) -> None:
        self._context = context
        self._standings = standings
        self._wishes = wishes
        self._place: _Place | None = None
        self._began = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._refused: set[KeyId] = set()  # since another one held the lease

    def changed(self) -> None:
        """This host and the engine stand elsewhere."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        current = self._standings.current
        if current is not None:
            self._tasks = [asyncio.ensure_future(self._run(each, current)) for each in (self._write, self._retry)]

    def anew(self) -> None:
        """The engine has lost entries: offer all there are."""
        self._place = None
        self.changed()

    async def finished(self) -> bool:
        """Whether everything there is has been written, or cannot be."""
        current, place = self._standings.current, self._place
        if current is None:
            return self._standings.decided
        if place is None or place.current != current or place.origin is Origin.ALL:
            return False
        try:
            batch = await self._context.host.read(current.standing.generation, place.position, Origin.LOCAL, 1, 1)
        except StaleError:
            return False
        return not batch.entries and self._place is place

    async def stop(self) -> None:
        await end(self._tasks)

    async def _run(self, what: Callable[[Current], Coroutine[None, None, None]], current: Current) -> None:
        try:
            await what(current)
        except _VoidError:
            self._standings.stir()
        except (LostError, StaleError):
            pass  # there will be another `current`

    async def _write(self, current: Current) -> None:
        host, generation = self._context.host, current.standing.generation
        place = self._place
        if place is None or place.current != current:
            place = _Place(current, 0, Origin.ALL)
        while self._standings.current == current:
            batch = await host.read(generation, place.position, place.origin, READ_BYTES_MAX, READ_ENTRIES_MAX)
            entries = [entry for _, entry in batch.entries]
            position, end = batch.position, batch.end
            del batch
            if entries:
                if place.origin is Origin.ALL:
                    entries = await self._lacking(current, entries)
                await asyncio.gather(*(self._put(current, entry) for entry in entries))
            entries = []  # who waits holds no pins
            place = self._place = _Place(current, position, Origin.LOCAL if end else place.origin)
            if end:
                await host.changed(generation, position)

    async def _retry(self, current: Current) -> None:
        """Write what was refused because another one held the lease, should nothing have come of that."""
        while self._standings.current == current:
            await asyncio.sleep(self._context.config.lease_ttl)
            for key_id in list(self._refused):
                await self._write_refused(current, key_id)

    async def _write_refused(self, current: Current, key_id: KeyId) -> None:
        entry = self._context.host.find(current.stamp, key_id)
        lacking = await self._lacking(current, [entry]) if entry is not None else []
        self._refused.discard(key_id)
        try:
            for each in lacking:
                await self._put(current, each)
        except (LostError, asyncio.CancelledError):
            self._refused.add(key_id)
            raise

    async def _lacking(self, current: Current, entries: list[Entry]) -> list[Entry]:
        """Those of which there is none yet, and those with which a lease ends."""
        keys = self._context.keys
        reply = await self._context.link.call(
            LACKS,
            (keys.head, keys.log, keys.values(current.generation)),
            (current.generation, *(entry.key_id for entry in entries)),
        )
        if not isinstance(reply, bytes) or reply == b"VOID":
            raise _VoidError
        lacks = dict(zip((entry.key_id for entry in entries), reply, strict=True))
        return [e for e in entries if lacks[e.key_id] == ord("1") or self._wishes.holding(e.key_id, current)[0]]

    async def _put(self, current: Current, entry: Entry) -> None:
        context, counters = self._context, self._context.counters
        if len(entry.payload) > context.codec.entry_bytes_max:
            counters["entries_too_large"] += 1
            self._wishes.passed(entry.key_id, entry)
            return
        try:
            reply = await self._store(current, entry)
        except FullError:
            reply = b"FULL"
        if reply == b"VOID":
            raise _VoidError
        if reply == b"FULL":
            counters["entries_not_kept"] += 1
            self._wishes.passed(entry.key_id, entry)
            return
        counters["entries_sent"] += reply == b"OK"
        if reply == b"REFUSED":
            counters["entries_refused"] += 1
            self._refused.add(entry.key_id)
        self._wishes.written(entry.key_id)

    async def _store(self, current: Current, entry: Entry) -> Reply:
        context, keys, generation = self._context, self._context.keys, current.generation
        config, link = context.config, context.link
        made = await context.codec.make(kept(context.name, current.stamp), entry)
        beyond = 0
        if made.name:
            # Before the entry itself: who finds that finds all of it. One at a time, since others write as well.
            where = (keys.head, keys.log, keys.pieces(generation))
            view = memoryview(made.payload)
            for number in range(pieces_of(len(view))):
                piece = view[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
                args = (generation, piece_field(made.name, number), piece, config.bytes_max)
                reply = await link.call(PIECE, where, args, BULK)
                if reply != b"OK":
                    return reply
        context.counters["bytes_sent"] += len(made.blob) + len(made.payload)
        token, fence = self._wishes.holding(entry.key_id, current)
        said = context.sealed(Stored(generation, entry.key_id, len(made.blob) + len(made.payload)))
        return await link.call(
            WRITE,
            (keys.head, keys.log, keys.values(generation), keys.lease(generation, entry.key_id)),
            (generation, entry.key_id, made.blob, token, fence, said, config.messages_max, beyond, config.bytes_max),
            BULK,
        )
