"""Taking entries out of the engine: their pieces collected, their seals checked."""

from __future__ import annotations

import logging

from ..relay import Entry, KeyId
from .connection import BULK, CONTROL, FullError
from .context import Context, Current
from .entries import PIECE_BYTES, UnreadableError, kept, piece_field, pieces_of
from .scripts import DISCARD
from .seal import TamperedError

__all__ = ["open_entry"]

logger = logging.getLogger("coopshm.cluster")

#: Pieces that are asked for together.
PIECES_AT_ONCE = 4


async def open_entry(context: Context, current: Current, key_id: KeyId, blob: bytes) -> Entry | None:
    """Return the entry that `blob`, found under `key_id`, is; None if it is not authentic or not whole.

    Such a one is removed, or all hosts would come upon it for as long as the generation lasts.

    Raises:
        LostError
    """
    codec = context.codec
    try:
        begin, inline = await codec.open(kept(context.name, current.stamp), blob, key_id)
        payload = bytearray()
        if begin.pieces:
            number, count = 0, pieces_of(begin.size)
            while number < count:
                fields = [piece_field(begin.pieces, at) for at in range(number, min(count, number + PIECES_AT_ONCE))]
                found = await context.link.command("HMGET", context.keys.pieces(current.generation), *fields, lane=BULK)
                for piece in found if isinstance(found, list) else []:
                    if not isinstance(piece, bytes) or len(piece) > PIECE_BYTES:
                        raise TamperedError("a piece is missing")
                    payload += piece
                number += len(fields)
        return await codec.read(begin, payload if begin.pieces else inline)
    except TamperedError as exc:
        context.counters["tampered"] += 1
        logger.warning("cache %r: an entry in the engine is %s, and is dropped: %r", context.name, exc, key_id[:40])
        keys = (context.keys.head, context.keys.log, context.keys.values(current.generation))
        try:
            await context.link.call(DISCARD, keys, (current.generation, key_id, blob), CONTROL)
        except FullError:
            pass
        return None
    except UnreadableError as exc:
        context.counters["tampered"] += 1
        logger.warning("cache %r: an entry in the engine cannot be read: %s", context.name, exc)
        return None
