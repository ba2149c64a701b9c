"""A stored value as an operator may see it: decoded where that is harmless, else as bytes.

Whoever can write to a segment can store any pickle, and a pickle is a program. An operator, root above all, must not
run it by looking at it. Here is decided what is decoded, and what is shown instead.
"""

from __future__ import annotations

import json
import os
import stat
from typing import Final, NamedTuple

from .. import arrays, values
from ..errors import CoopshmError, DecodeError, type_name
from .text import Line, printable
from .text import size as size_text

__all__ = ["FORMATS", "Shown", "Stored", "decode", "may_decode"]

#: What a format number is called; the numbers are those of values.py.
FORMATS: Final = {
    values.BYTES: "bytes",
    values.STR: "str",
    values.PICKLE: "pickle",
    values.PICKLE_BUFFERS: "pickle+buffers",
    values.CUSTOM: "custom",
    values.JSON: "json",
    values.MSGPACK: "msgpack",
    values.ARRAY: "array",
}

#: Formats whose decoding can run what their bytes say.
_PROGRAMS: Final = (values.PICKLE, values.PICKLE_BUFFERS)

_DUMPED = 256


class Stored(NamedTuple):
    """A value as it is stored."""

    format: int
    data: bytes

    @property
    def name(self) -> str:
        return FORMATS.get(self.format, f"unknown ({self.format})")

    def dump(self) -> list[Line]:
        """Return its size and format, and its first bytes in hexadecimal and as characters."""
        lines = [Line(f"{self.name}, {len(self.data)} bytes ({size_text(len(self.data))})", "title")]
        for at in range(0, min(len(self.data), _DUMPED), 16):
            row = self.data[at : at + 16]
            hexadecimal = " ".join(f"{byte:02x}" for byte in row)
            text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
            lines.append(Line(f"{at:08x}  {hexadecimal:<47}  {text}"))
        if len(self.data) > _DUMPED:
            lines.append(Line("...", "dim"))
        return lines


class Shown(NamedTuple):
    """A value as it is printed."""

    type: str
    text: str


def may_decode(stored: Stored, writers: os.stat_result, trust: bool) -> str | None:
    """Return why the value must not be decoded, None if it may be.

    Args:
        writers: of the segment: who owns it, and whom else its mode lets write.
        trust: the operator said that it may be.
    """
    if stored.format == values.CUSTOM and not trust:
        return "the application's own serializer would have to be imported; --trust does that"
    if stored.format in _PROGRAMS and not trust:
        if writers.st_uid != os.geteuid():
            return f"it is a pickle, and uid {writers.st_uid} can make it run any code as you; --trust decodes it"
        if writers.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return "it is a pickle, and others than you can write to the segment; --trust decodes it"
    return None


def decode(stored: Stored, serializer: object) -> Shown:
    """Decode a value and print it as Python does.

    Args:
        serializer: that of the configuration; needed for values of the application's own one.

    Raises:
        DecodeError: it is damaged, or what it takes to decode it is not installed.
        ConfigError: the serializer cannot be imported.
    """
    try:
        value = _value(stored, serializer)
        return Shown(type_name(type(value)), printable(repr(value)))
    except DecodeError as exc:
        raise DecodeError(f"{exc}; --raw writes its bytes") from exc
    except CoopshmError:
        raise
    except Exception as exc:
        raise DecodeError(f"a value of format {stored.name} cannot be decoded: {type(exc).__name__}: {exc}") from exc


def _value(stored: Stored, serializer: object) -> object:
    if stored.format == values.JSON:
        return json.loads(stored.data)
    if stored.format == values.MSGPACK:
        return values.codec("msgpack").decode(stored.format, stored.data)
    if stored.format == values.ARRAY:
        return arrays.decode(stored.data)
    if stored.format == values.CUSTOM:
        if serializer is None:
            raise DecodeError("the configuration does not say which serializer the cache has")
        return values.codec(serializer).decode(stored.format, stored.data)
    return values.codec("pickle").decode(stored.format, stored.data)
