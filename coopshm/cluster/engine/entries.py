"""Entries as they are kept in the engine: sealed, in pieces if they are large, compressed if that is wished.

    small   seal (32) · length of what precedes (4) · what precedes (sayings.Begin) · payload
    large   the same without the payload, which is in pieces of their own, under a name made for them

The seal covers what an entry is for, the cache and the whole stamp, what precedes, and the payload as it is kept. It is
checked before anything is decoded or decompressed; a large payload is collected first, up to the size that is allowed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ..relay import Entry, KeyId, Kind, Stamp
from .sayings import Begin, decode_begin, encode
from .seal import MAC_BYTES, Seal, TamperedError

__all__ = ["KEPT", "PIECE_BYTES", "Codec", "Made", "UnreadableError", "kept", "piece_field", "pieces_of"]

#: What is larger is kept in pieces of this size, in bytes: each is a moment in which the engine does nothing else.
PIECE_BYTES = 256 * 1024

#: Payloads from here on are sealed and compressed in a thread: that takes a millisecond.
THREAD_BYTES = 512 * 1024

#: A compressed payload is kept if it is at most this much of the other, in percent.
WORTH = 90

#: What an entry is for: to be kept.
KEPT = b"entry"


class UnreadableError(ValueError):
    """Authentic, but not for here: compressed, and `zstandard` is not installed."""


class Made(NamedTuple):
    """An entry, as it is to be kept."""

    blob: bytes
    name: bytes  #: of its pieces; b"" if it has none
    payload: bytes | memoryview  #: to be cut into pieces


def piece_field(name: bytes, number: int) -> bytes:
    return name + number.to_bytes(4, "big")


def pieces_of(size: int) -> int:
    """How many pieces a payload of that size has."""
    return -(-size // PIECE_BYTES)


def kept(cache: str, stamp: Stamp, purpose: bytes = KEPT, place: bytes = b"") -> tuple[bytes, ...]:
    """What the seal of an entry says it is for."""
    return (purpose, cache.encode(), b"%d" % stamp.counter, stamp.version, stamp.node.encode(), place)


class Codec:
    """Makes them and reads them."""

    def __init__(self, seal: Seal, entry_bytes_max: int, compress_above: int | None) -> None:
        """
        Args:
            entry_bytes_max: of a payload.
            compress_above: payloads of more bytes are compressed; None: none are.

        Raises:
            ImportError: something is to be compressed, and `zstandard` is not installed.
        """
        self.seal = seal
        self.entry_bytes_max = entry_bytes_max
        self._above = compress_above
        if compress_above is not None:
            import zstandard  # noqa: F401

    async def make(self, purpose: Sequence[bytes], entry: Entry, in_pieces: bool = True) -> Made:
        """Return what is to be kept of `entry`."""
        if len(entry.payload) > THREAD_BYTES:
            return await asyncio.to_thread(self._make, purpose, entry, in_pieces)
        return self._make(purpose, entry, in_pieces)

    def _make(self, purpose: Sequence[bytes], entry: Entry, in_pieces: bool) -> Made:
        payload, plain = entry.payload, 0
        if self._above is not None and len(payload) > self._above:
            import zstandard

            smaller = zstandard.ZstdCompressor(level=3).compress(payload)
            if len(smaller) * 100 <= len(payload) * WORTH:
                payload, plain = smaller, len(payload)
        name = os.urandom(16) if in_pieces and len(payload) > PIECE_BYTES else b""
        key = entry.key if entry.key != entry.key_id else b""
        begin = encode(Begin(entry.key_id, key, entry.format, int(entry.kind), len(payload), plain, name))
        head = self.seal.mac(purpose, (begin, payload)) + len(begin).to_bytes(4, "big") + begin
        return Made(head, name, payload) if name else Made(b"".join((head, payload)), b"", b"")

    def begin(self, blob: bytes, key_id: KeyId) -> Begin:
        """Return what precedes: not authenticated yet, so to be used only to collect the pieces, with `read` to follow.

        Raises:
            TamperedError: it cannot be the entry of that key.
        """
        length = int.from_bytes(blob[MAC_BYTES : MAC_BYTES + 4], "big")
        try:
            begin = decode_begin(memoryview(blob)[MAC_BYTES + 4 : MAC_BYTES + 4 + length])
        except msgspec.MsgspecError as exc:
            raise TamperedError("not an entry") from exc
        if begin.key_id != key_id or max(begin.size, begin.plain) > self.entry_bytes_max or len(begin.pieces) % 16:
            raise TamperedError("not the entry of this key")
        return begin

    async def read(
        self, purpose: Sequence[bytes], blob: bytes, key_id: KeyId, pieces: bytes | bytearray = b""
    ) -> Entry:
        """Return the entry.

        Raises:
            TamperedError: it is not authentic.
            UnreadableError: it is, but it takes a package that is not installed.
        """
        begin = self.begin(blob, key_id)
        if begin.size > THREAD_BYTES:
            return await asyncio.to_thread(self._read, purpose, blob, begin, pieces)
        return self._read(purpose, blob, begin, pieces)

    def _read(self, purpose: Sequence[bytes], blob: bytes, begin: Begin, pieces: bytes | bytearray) -> Entry:
        at = MAC_BYTES + 4 + int.from_bytes(blob[MAC_BYTES : MAC_BYTES + 4], "big")
        view = memoryview(blob)
        payload = memoryview(pieces) if begin.pieces else view[at:]
        if len(payload) != begin.size or (begin.pieces and len(blob) != at):
            raise TamperedError("not whole")
        self.seal.check(view[:MAC_BYTES], purpose, (view[MAC_BYTES + 4 : at], payload))
        plain: bytes | memoryview = payload
        if begin.plain:
            try:
                import zstandard
            except ImportError as exc:
                raise UnreadableError("compressed; install coopshm[zstd]") from exc
            try:
                plain = zstandard.ZstdDecompressor().decompress(payload, max_output_size=begin.plain)
            except zstandard.ZstdError as exc:
                raise TamperedError("cannot be decompressed") from exc
        return Entry(begin.key_id, begin.key or begin.key_id, begin.format, Kind(begin.kind), plain)
