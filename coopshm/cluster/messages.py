"""What nodes say to each other: typed messages in MessagePack, each with a number as tag, every length bounded.

The numbers and the order of fields are the protocol: fields are added at the end, with a default; what is not
understood ends the connection. VERSION is raised by any other change; nodes of different versions do not talk.

    Hello, Welcome                             the first of each side on a connection
    Ping, Pong                                 a heartbeat and its echo, which is all that the accepting side ever sends
    View, Standing                             whom the sender sees and what it holds; where one of its caches stands
    Ask, Withdraw, Done, Fetch                 to the owner node of a key (Fetch: to whom it named)
    Granted, Held, Alone, At, Finished,        its answers; Want goes to the holder
      NotHere, Want
    Subscribe, Take, Log, Offer, CaughtUp,     the commit log of one cache, from one node to another
      Over
    Begin                                      an entry: its payload follows in pieces (wire.py)

Nothing here believes what it decodes: bounds are all that is checked.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from .relay import KEY_ID_BYTES_MAX
from .stamps import COUNTER_MAX, SEEN_MAX

__all__ = [
    "ENTRY_BYTES_MAX",
    "HOLDINGS_MAX",
    "OFFERS_MAX",
    "VERSION",
    "Alone",
    "Ask",
    "At",
    "Begin",
    "CaughtUp",
    "Done",
    "Fetch",
    "Finished",
    "Granted",
    "Held",
    "Hello",
    "Holding",
    "Log",
    "Message",
    "NotHere",
    "Offer",
    "Over",
    "Ping",
    "Pong",
    "Purpose",
    "Standing",
    "Subscribe",
    "Take",
    "View",
    "Want",
    "Welcome",
    "Withdraw",
    "decode",
    "encode",
]

VERSION = 1

#: An entry's payload: the largest value that a segment stores.
ENTRY_BYTES_MAX = 2**32

#: Leases that one node can hold of one other: the flights of some caches.
HOLDINGS_MAX = 65_536

#: Keys in one offer.
OFFERS_MAX = 1024

Number = Annotated[int, Meta(ge=0, le=COUNTER_MAX)]
Name = Annotated[str, Meta(max_length=100)]
OriginName = Annotated[str, Meta(max_length=200)]
Instance = Annotated[bytes, Meta(min_length=16, max_length=16)]
Hash = Annotated[bytes, Meta(min_length=8, max_length=8)]
KeyId = Annotated[bytes, Meta(max_length=KEY_ID_BYTES_MAX)]
Key = Annotated[bytes, Meta(max_length=65_535)]
Reason = Annotated[str, Meta(max_length=500)]
Seen = Annotated[dict[OriginName, Number], Meta(max_length=SEEN_MAX)]

#: A stamp as it is sent: its parts, so that they are bounded as well.
WireStamp = tuple[Number, Annotated[bytes, Meta(max_length=1024)], OriginName]


class Hello(Struct, array_like=True, frozen=True, tag=1):
    version: Number
    name: Name
    instance: Instance  #: of the process, random
    namespace: Name


class Welcome(Struct, array_like=True, frozen=True, tag=2):
    version: Number
    name: Name
    instance: Instance
    refused: Reason = ""  #: why the connection ends here


class Ping(Struct, array_like=True, frozen=True, tag=3):
    number: Number


class Pong(Struct, array_like=True, frozen=True, tag=4):
    number: Number


class Holding(Struct, array_like=True, frozen=True):
    cache: Name
    stamp: WireStamp
    key_id: KeyId
    serial: Number


class View(Struct, array_like=True, frozen=True, tag=5):
    number: Number  #: later ones are larger
    view: Hash  #: of the nodes that the sender sees, itself included
    holdings: Annotated[list[Holding], Meta(max_length=HOLDINGS_MAX)]  #: all that it has leased of the receiver


class Standing(Struct, array_like=True, frozen=True, tag=6):
    number: Number  #: later ones are larger
    cache: Name
    stamp: WireStamp | None  #: None: the sender does not have the cache
    seen: Seen
    origin: OriginName
    generation: Number
    failing: bool = False  #: its on_reset callback raises


class Ask(Struct, array_like=True, frozen=True, tag=10):
    cache: Name
    stamp: WireStamp
    key_id: KeyId
    serial: Number  #: of the asker; answers carry it
    view: Hash
    not_at: Name = ""  #: who was said to have the entry and does not


class Withdraw(Struct, array_like=True, frozen=True, tag=11):
    cache: Name
    stamp: WireStamp
    key_id: KeyId
    serial: Number


class Done(Struct, array_like=True, frozen=True, tag=12):
    """The holder is done: the entry is in its log (`stored`), or there is none and the next may compute."""

    cache: Name
    stamp: WireStamp
    key_id: KeyId
    serial: Number
    stored: bool


class Fetch(Struct, array_like=True, frozen=True, tag=13):
    cache: Name
    stamp: WireStamp
    key_id: KeyId
    serial: Number


class Granted(Struct, array_like=True, frozen=True, tag=20):
    cache: Name
    stamp: WireStamp
    key_id: KeyId
    serial: Number


class Held(Struct, array_like=True, frozen=True, tag=21):
    cache: Name
    stamp: WireStamp
    key_id: KeyId
    serial: Number


class Alone(Struct, array_like=True, frozen=True, tag=22):
    """Compute without a lease: the owner node cannot help."""

    cache: Name
    stamp: WireStamp
    key_id: KeyId
    serial: Number


class At(Struct, array_like=True, frozen=True, tag=24):
    """That node has stored it, and the sender could not."""

    cache: Name
    stamp: WireStamp
    key_id: KeyId
    serial: Number
    node: Name


class Want(Struct, array_like=True, frozen=True, tag=25):
    cache: Name
    stamp: WireStamp
    key_id: KeyId
    serial: Number


class Finished(Struct, array_like=True, frozen=True, tag=26):
    """To those who wait: that node has stored it, and its log will bring it."""

    cache: Name
    stamp: WireStamp
    key_id: KeyId
    serial: Number
    node: Name


class NotHere(Struct, array_like=True, frozen=True, tag=27):
    cache: Name
    stamp: WireStamp
    key_id: KeyId
    serial: Number


class Subscribe(Struct, array_like=True, frozen=True, tag=30):
    """Send me your log of that cache, from `position` on if it is still that log, else from its beginning."""

    stream: Number  #: chosen by the receiver of the log; a larger one replaces the cache's last
    cache: Name
    stamp: WireStamp
    origin: OriginName
    generation: Number
    position: Number


class Take(Struct, array_like=True, frozen=True, tag=31):
    """Of the last offer, these (its indices)."""

    stream: Number
    indices: Annotated[list[Annotated[int, Meta(ge=0, lt=OFFERS_MAX)]], Meta(max_length=OFFERS_MAX)]


class Log(Struct, array_like=True, frozen=True, tag=32):
    """The stream begins, at `position` of the log of that segment and generation."""

    stream: Number
    origin: OriginName
    generation: Number
    position: Number


class Offer(Struct, array_like=True, frozen=True, tag=33):
    stream: Number
    keys: Annotated[list[KeyId], Meta(max_length=OFFERS_MAX)]
    position: Number  #: of the log, when those that are taken have been sent


class CaughtUp(Struct, array_like=True, frozen=True, tag=34):
    """From here on, entries come as they are stored."""

    stream: Number
    position: Number


class Over(Struct, array_like=True, frozen=True, tag=35):
    """The stream's generation is over."""

    stream: Number


class Purpose:
    """What an entry is sent for."""

    LOG = 0  #: `number`: the stream
    ANSWER = 1  #: to an Ask or Fetch; `number`: its serial
    OUTCOME_UP = 2  #: from the holder to the owner node; `number`: the lease's serial
    OUTCOME_DOWN = 3  #: from the owner node to who waits; `number`: the serial of its Ask


class Begin(Struct, array_like=True, frozen=True, tag=40):
    """An entry. Its payload is in the message if it is short, else in the pieces of that transfer."""

    transfer: Number
    purpose: Annotated[int, Meta(ge=0, le=3)]
    number: Number
    cache: Name  #: "" in a log
    stamp: WireStamp | None  #: None in a log
    key_id: KeyId  #: b"" where it is the key itself
    key: Key
    format: Annotated[int, Meta(ge=0, le=255)]
    kind: Annotated[int, Meta(ge=0, le=3)]
    size: Annotated[int, Meta(ge=0, le=ENTRY_BYTES_MAX)]
    payload: bytes = b""
    position: Number = 0  #: in a log: to go on from, when this has arrived


Message = (
    Hello
    | Welcome
    | Ping
    | Pong
    | View
    | Standing
    | Ask
    | Withdraw
    | Done
    | Fetch
    | Granted
    | Held
    | Alone
    | At
    | Want
    | Finished
    | NotHere
    | Subscribe
    | Take
    | Log
    | Offer
    | CaughtUp
    | Over
    | Begin
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode(data: bytes | memoryview) -> Message:
    """Return the message that `data` is.

    Raises:
        ValueError: it is none. The memory taken is a small multiple of the length of `data`.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise ValueError(f"not a message: {exc}") from None
