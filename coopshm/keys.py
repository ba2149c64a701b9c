"""Keys as bytes: injective, typed, and the same in every process, on every host and Python version.

The index compares keys as bytes, in memory that processes of different Python versions share and that the
sidecar copies to other hosts. Hence an encoding of our own: pickle and marshal are not stable, JSON cannot
tell 1 from 1.0 or "1" from b"1", and Python's `==` takes 1, 1.0 and True for one key. Two keys have the same
bytes only if they have the same types and the same value, and exactly one byte string stands for each key.

Format: one tag byte, then the payload up to the end.

    tag   key     payload
    s     str     UTF-8; a lone surrogate as the three bytes UTF-8 would give its code point
    b     bytes   the bytes
    i     int     lower-case hexadecimal digits, after "-" if negative, without leading zeros
    d     float   IEEE 754 binary64, big-endian; every NaN as 7ff8000000000000
    t f   bool    none
    n     None    none
    (     tuple   per item: the length of its encoding (2 bytes, big-endian), its encoding

So ("a", 42) is `28 0002 7361 0003 693261`. Integers are in hexadecimal because that is both the fastest to
produce in pure Python and free of the limit on decimal digits. An encoding has at most MAX_KEY_BYTES bytes
(which is why two bytes suffice for every length inside) and at most MAX_DEPTH levels of tuples.

Only the exact types are taken. A subclass (an IntEnum, a namedtuple, numpy.str_) may compare and print as it
likes, would come back as another type, and might encode differently in another release: it is refused with a
hint.

Changing this format changes the meaning of every existing segment: the golden vectors in tests/test_keys.py
hold it.
"""

from __future__ import annotations

from struct import Struct

from .errors import InvalidKeyError, shorten, shorten_text, type_name

__all__ = ["MAX_DEPTH", "MAX_KEY_BYTES", "decode_key", "encode_key", "preview"]

#: Longest encoded key, in bytes: what the 16-bit key length of an entry can say.
MAX_KEY_BYTES = 65535

#: Most levels of tuples inside each other, far above any real key and far below Python's recursion limit.
MAX_DEPTH = 32

_BINARY64 = Struct(">d")
_NAN = bytes.fromhex("7ff8000000000000")

# A lookup takes a third of the time of int.to_bytes(), and hardly an item of a key is longer than 255 bytes.
_SHORT_LENGTHS = tuple(n.to_bytes(2, "big") for n in range(256))

_SMALLEST_ITEM = 3  # two bytes of length and a tag


def encode_key(key: object) -> bytes:
    """Return the bytes that stand for `key`.

    Args:
        key: a str, bytes, int, float, bool or None, or a tuple of such keys up to MAX_DEPTH levels deep.

    Raises:
        InvalidKeyError: another type, an encoding longer than MAX_KEY_BYTES, or tuples nested too deep.
    """
    # Ordered by how often a type is a key. Of what was timed, these tests and concatenations are the fastest;
    # _encode_tuple repeats them, because a call for each item would make it a tenth slower.
    if type(key) is str:
        try:
            data = b"s" + key.encode()
        except UnicodeEncodeError:
            data = b"s" + key.encode("utf-8", "surrogatepass")
    elif type(key) is tuple:
        data = _encode_tuple(key, key, ())
    elif type(key) is int:
        data = b"i%x" % key
    elif type(key) is bytes:
        data = b"b" + key
    else:
        data = _encode_rare(key, key, ())
    if len(data) > MAX_KEY_BYTES:
        raise _too_long(key, f"its encoding has {len(data)} bytes")
    return data


def _encode_tuple(items: tuple[object, ...], key: object, path: tuple[int, ...]) -> bytes:
    """Encode a tuple that stands at `path` in `key`, the whole key (for messages)."""
    if len(path) >= MAX_DEPTH:
        raise InvalidKeyError(f"a key may have {MAX_DEPTH} levels of tuples, this one has more: {shorten(key)}")
    if len(items) * _SMALLEST_ITEM >= MAX_KEY_BYTES:
        raise _too_long(key, f"it has a tuple of {len(items)} items")
    pieces = [b"("]
    for item in items:
        if type(item) is str:
            try:
                data = b"s" + item.encode()
            except UnicodeEncodeError:
                data = b"s" + item.encode("utf-8", "surrogatepass")
        elif type(item) is int:
            data = b"i%x" % item
        elif type(item) is bytes:
            data = b"b" + item
        elif type(item) is tuple:
            data = _encode_tuple(item, key, (*path, len(pieces) // 2))
        else:
            data = _encode_rare(item, key, (*path, len(pieces) // 2))
        length = len(data)
        if length < 256:
            pieces.append(_SHORT_LENGTHS[length])
        elif length <= MAX_KEY_BYTES:
            pieces.append(length.to_bytes(2, "big"))
        else:
            at = _at((*path, len(pieces) // 2))
            raise _too_long(key, f"the encoding of its item {at} has {length} bytes")
        pieces.append(data)
    return b"".join(pieces)


def _encode_rare(item: object, key: object, path: tuple[int, ...]) -> bytes:
    if item is None:
        return b"n"
    if item is True:
        return b"t"
    if item is False:
        return b"f"
    if type(item) is float:
        return b"d" + (_BINARY64.pack(item) if item == item else _NAN)
    where = f" (its item {_at(path)})" if path else ""
    raise InvalidKeyError(
        "a key consists of str, bytes, int, float, bool, None and tuples of them, "
        f"not of {type_name(type(item))}{where}: {_hint(item)}; the key is {shorten(key)}"
    )


def _at(path: tuple[int, ...]) -> str:
    return "".join(f"[{position}]" for position in path)


def _hint(item: object) -> str:
    """What to write instead of `item`, which no key may hold."""
    kind = type(item)
    if hasattr(kind, "__members__"):
        return "write .value after the enum member"
    if kind.__module__.partition(".")[0] == "numpy":
        return "write .tolist() after it" if hasattr(kind, "tolist") else "convert it"
    for allowed in (str, bytes, int, float, tuple):
        if isinstance(item, allowed):
            return f"convert it with {allowed.__name__}(...), subclasses are not taken"
    known = {
        "list": "write tuple(...)",
        "set": "write tuple(sorted(...))",
        "frozenset": "write tuple(sorted(...))",
        "dict": "write tuple(sorted(....items()))",
        "bytearray": "write bytes(...)",
        "memoryview": "write bytes(...)",
        "datetime": "write .isoformat() after it",
        "date": "write .isoformat() after it",
        "time": "write .isoformat() after it",
    }
    return known.get(kind.__name__, "write what identifies it, such as its id or str(...)")


def _too_long(key: object, why: str) -> InvalidKeyError:
    return InvalidKeyError(
        f"a key may take {MAX_KEY_BYTES} bytes, but {why}: use a digest instead, such as "
        f"hashlib.sha256(...).digest(); the key is {shorten(key)}"
    )


def decode_key(data: bytes) -> object:
    """Return the key that `data` stands for, the inverse of `encode_key`.

    Raises:
        ValueError: `data` is not what `encode_key` returns for any key. Nothing else is ever raised, whatever
            the bytes: they may come from a corrupted segment or from the network.
    """
    if len(data) > MAX_KEY_BYTES:
        raise ValueError(f"an encoded key of {len(data)} bytes, above the {MAX_KEY_BYTES} that are possible")
    return _decode(bytes(data), 0)


def _decode(data: bytes, depth: int) -> object:
    tag = data[:1]
    if tag == b"s":
        return data[1:].decode("utf-8", "surrogatepass")
    if tag == b"(":
        if depth >= MAX_DEPTH:
            raise ValueError(f"an encoded key with more than {MAX_DEPTH} levels of tuples")
        return tuple([_decode(item, depth + 1) for item in _items(data)])
    if tag == b"i":
        number = int(data[1:], 16)
        # int() also takes blanks, underscores, capitals, "0x", "+" and leading zeros, which would give one
        # key several encodings.
        if b"i%x" % number == data:
            return number
    elif tag == b"b":
        return data[1:]
    elif tag == b"d" and len(data) == 9:
        value: float = _BINARY64.unpack_from(data, 1)[0]
        if value == value or data[1:] == _NAN:
            return value
    elif data == b"n":
        return None
    elif data == b"t" or data == b"f":
        return data == b"t"
    raise ValueError(f"not an encoded key: {shorten(data)}")


def _items(data: bytes) -> list[bytes]:
    """Split the encoding of a tuple into the encodings of its items."""
    items = []
    at = 1
    while at < len(data):
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if at <= start or at > len(data):
            raise ValueError(f"a length inside an encoded key is wrong: {shorten(data)}")
        items.append(data[start:at])
    return items


def preview(data: bytes, limit: int = 80, total: int | None = None) -> str:
    """Return an encoded key, of which only the beginning may be known, in readable form for a message.

    Args:
        data: the encoding, or as many of its first bytes as there are.
        limit: most characters to return; the middle of anything longer is left out.
        total: length of the whole encoding in bytes, if known. Without it, a str or bytes that was cut short
            cannot be told from a whole one.

    Returns:
        The `repr` of the key, with "..." where the rest is unknown. Never raises.
    """
    data = bytes(data[:MAX_KEY_BYTES])
    if total is None or total <= len(data):
        try:
            return shorten(_decode(data, 0), limit)
        except ValueError:
            pass
    return shorten_text(_preview_start(data, 0), limit)


def _preview_start(data: bytes, depth: int) -> str:
    """Render the first bytes of an encoding whose rest is missing."""
    tag, payload = data[:1], data[1:]
    if tag == b"s":
        # The cut may have gone through a character, of which up to three bytes are then left.
        for cut in range(4):
            try:
                text = payload[: len(payload) - cut].decode("utf-8", "surrogatepass")
            except UnicodeDecodeError:
                continue
            return repr(text) + "..."
    elif tag == b"b":
        return repr(payload) + "..."
    elif tag == b"i" or tag == b"d":
        sign, digits = ("-", payload[1:]) if payload[:1] == b"-" else ("", payload)
        return f"{sign}0x{digits.decode()}..." if tag == b"i" and digits.isalnum() else "..."
    elif tag == b"(" and depth < MAX_DEPTH:
        shown = "(" + ", ".join(_preview_items(data, depth))
        if shown == "(" or shown.endswith("..."):
            return shown.removesuffix("...") + "..."
        return shown + ", ..."
    return f"<unreadable key {data.hex()}>"


def _preview_items(data: bytes, depth: int) -> list[str]:
    shown = []
    at = 1
    while at + 2 < len(data):
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        item = data[start:at]
        try:
            if at > len(data):
                raise ValueError("cut short")
            shown.append(repr(_decode(item, depth + 1)))
        except ValueError:
            shown.append(_preview_start(item, depth + 1))
    return shown
