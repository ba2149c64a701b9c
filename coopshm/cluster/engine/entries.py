"""Entries as they are kept in the engine: sealed, in pieces if they are large, compressed if that is wished.

    small   seal (32) · length of what precedes (4) · what precedes (sayings.Begin) · payload
    large   the same without the payload, which is in pieces of their own, under a name made for them

The seal covers what an entry is for, the cache and the whole stamp, and all that follows; of a large payload, its
digest is among what precedes. Nothing is decoded, collected or decompressed before its seal or digest has been checked.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ..relay import Entry, KeyId, Kind, Stamp
from .sayings import Begin, decode_begin, encode
from .seal import MAC_BYTES, Seal, TamperedError

__all__ = ["KEPT", "PIECE_BYTES", "Codec", "Made", "UnreadableError", "kept", "piece_field", "pieces_of"]

#: What is larger is kept in pieces of this size, in bytes: each is a moment in which the engine does nothing else. With
#: what Redis puts before it, a piece just fits one of its allocator's sizes (256 KiB; the next one is 320).
PIECE_BYTES = 255 * 1024

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
        digest = hashlib.sha256(payload).digest() if name else b""
        key = entry.key if entry.key != entry.key_id else b""
        begin = encode(Begin(entry.key_id, key, entry.format, int(entry.kind), len(payload), plain, name, digest))
        body = b"" if name else payload
        head = self.seal.mac(purpose, (begin, body)) + len(begin).to_bytes(4, "big") + begin
        return Made(head, name, payload) if name else Made(b"".join((head, body)), b"", b"")

    async def open(self, purpose: Sequence[bytes], blob: bytes, key_id: KeyId) -> tuple[Begin, memoryview]:
        """Return what precedes the payload, and the payload: empty if it is in pieces, which are to be collected then.

        Raises:
            TamperedError: it is not authentic, or another key's.
        """
        if len(blob) > THREAD_BYTES:
            return await asyncio.to_thread(self._open, purpose, blob, key_id)
        return self._open(purpose, blob, key_id)

    def _open(self, purpose: Sequence[bytes], blob: bytes, key_id: KeyId) -> tuple[Begin, memoryview]:
        view = memoryview(blob)
        at = MAC_BYTES + 4 + int.from_bytes(view[MAC_BYTES : MAC_BYTES + 4], "big")
        if at > len(view):
            raise TamperedError("not whole")
        payload = view[at:]
        self.seal.check(view[:MAC_BYTES], purpose, (view[MAC_BYTES + 4 : at], payload))
        try:
            begin = decode_begin(view[MAC_BYTES + 4 : at])
        except msgspec.MsgspecError as exc:
            raise TamperedError("not an entry") from exc
        if begin.key_id != key_id:
            raise TamperedError("another key's entry")
        if max(begin.size, begin.plain) > self.entry_bytes_max or len(begin.pieces) % 16:
            raise TamperedError("not an entry")
        return begin, payload

    async def read(self, begin: Begin, payload: bytearray | memoryview) -> Entry:
        """Return the entry, of what `open` returned and, if it is in pieces, these.

        Raises:
            TamperedError: the pieces are not its own.
            UnreadableError: it takes a package that is not installed.
        """
        if begin.size > THREAD_BYTES:
            return await asyncio.to_thread(self._read, begin, payload)
        return self._read(begin, payload)

    def _read(self, begin: Begin, payload: bytearray | memoryview) -> Entry:
        if len(payload) != begin.size:
            raise TamperedError("not whole")
        if begin.pieces and not hmac.compare_digest(hashlib.sha256(payload).digest(), begin.digest):
            raise TamperedError("not authenticated")
        plain: bytes | memoryview = memoryview(payload)
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
