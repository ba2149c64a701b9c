"""What nodes say to each other through the engine: the messages of a cache's log, the claim at its head, and what
precedes an entry. MessagePack, every length bounded; the order of fields is the protocol (keys.VERSION).

A message names the generation (keys.py) that it is about, since one log outlives the generations. All of it is decoded
after its seal has been checked only.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ..messages import ENTRY_BYTES_MAX, Key, KeyId, Name, Number, Seen, Standing, WireStamp

__all__ = [
    "Abandoned",
    "Begin",
    "Head",
    "Joined",
    "Left",
    "Message",
    "Moved",
    "Outcome",
    "Stored",
    "Wanted",
    "decode",
    "decode_begin",
    "decode_head",
    "encode",
]

Generation = Annotated[str, Meta(max_length=64)]
Fingerprint = Annotated[str, Meta(max_length=64)]
Instance = Annotated[bytes, Meta(min_length=16, max_length=16)]


class Head(Struct, array_like=True, frozen=True):
    """Where the cluster stands, and which resets that includes."""

    stamp: WireStamp
    seen: Seen


class Begin(Struct, array_like=True, frozen=True):
    """What precedes a payload. `size`: as it is kept; `plain`: of the payload itself, if it is compressed, else 0."""

    key_id: KeyId
    key: Key
    format: Annotated[int, Meta(ge=0, le=255)]
    kind: Annotated[int, Meta(ge=0, le=3)]
    size: Annotated[int, Meta(ge=0, le=ENTRY_BYTES_MAX)]
    plain: Annotated[int, Meta(ge=0, le=ENTRY_BYTES_MAX)] = 0
    pieces: Annotated[bytes, Meta(max_length=16)] = b""  #: under which name its pieces are; b"": it follows at once
    digest: Annotated[bytes, Meta(max_length=32)] = b""  #: SHA-256 of what is in pieces


class Stored(Struct, array_like=True, frozen=True, tag=1):
    """There is an entry of this key now."""

    generation: Generation
    key_id: KeyId
    size: Number


class Wanted(Struct, array_like=True, frozen=True, tag=2):
    """Somebody waits for this key."""

    generation: Generation
    key_id: KeyId


class Abandoned(Struct, array_like=True, frozen=True, tag=3):
    """The lease on this key is free again, and nothing has come of it: ask again."""

    generation: Generation
    key_id: KeyId


class Outcome(Struct, array_like=True, frozen=True, tag=4):
    """What a computation under that lease came to, and is not kept. `serial` rises with each one of `instance`: what is
    repeated is not heard twice."""

    generation: Generation
    key_id: KeyId
    fence: Number
    instance: Instance
    serial: Number
    entry: bytes  #: as entries.py makes them; b"": under the name `place`, for some seconds
    place: Annotated[bytes, Meta(max_length=16)] = b""


class Moved(Struct, array_like=True, frozen=True, tag=5):
    """The head has changed."""

    generation: Generation


class Joined(Struct, array_like=True, frozen=True, tag=6):
    """Where a node stands and what it knows: said whenever that changes."""

    node: Name
    instance: Instance
    standing: Standing
    knows: Annotated[list[Fingerprint], Meta(max_length=16)] = []  #: secrets, the one to use first (keyring.py)


class Left(Struct, array_like=True, frozen=True, tag=7):
    """A node ends."""

    node: Name
    instance: Instance


Message = Stored | Wanted | Abandoned | Outcome | Moved | Joined | Left

_encoder = msgspec.msgpack.Encoder()
_messages: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_heads = msgspec.msgpack.Decoder(Head)
_begins = msgspec.msgpack.Decoder(Begin)


def encode(what: Message | Head | Begin) -> bytes:
    return _encoder.encode(what)


def decode(data: bytes) -> Message:
    """
    Raises:
        msgspec.MsgspecError: it is none.
    """
    return _messages.decode(data)


def decode_head(data: bytes) -> Head:
    """
    Raises:
        msgspec.MsgspecError: it is none.
    """
    return _heads.decode(data)


def decode_begin(data: bytes | memoryview) -> Begin:
    """
    Raises:
        msgspec.MsgspecError: it is none.
    """
    return _begins.decode(data)
