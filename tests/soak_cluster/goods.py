"""Keys, and values that say of themselves what they are of, and cannot be forged by a mix-up of bytes.

A value is `meta` (which computation made it, for which key, when it began, under which stamp) and a payload that
follows from it. Which form and size it has follows from the key: bytes, text, a dict, a tuple; from 100 bytes to 1.5
MiB, so that some travel in pieces.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

#: Of each cache: keys that are asked for often, and all. "roomy" has room for all of them, "tight" has not.
FEW = 12
MANY = {"roomy": 240, "tight": 160}
LIMITS = {"roomy": "64 MiB", "tight": "2 MiB"}

_LONG = "a key that is longer than what travels of one, " * 4


class WrongError(Exception):
    """This is not what was computed."""


class FailedError(Exception):
    """What computations raise: its text is a value's meta."""


def key_of(number: int | str) -> object:
    """The key itself, of its number; probes have names."""
    if isinstance(number, str):
        return number
    return (("k", number), f"key {number}", _LONG + str(number), (number, True, None))[number % 4]


def size_of(number: int | str) -> int:
    """Bytes of a value's payload."""
    if isinstance(number, str):
        return 100
    if number % 40 == 39:
        return 600_000 + 200_000 * (number // 40)
    if number % 5 == 4:
        return 4_000 + 2_000 * (number % 19)
    return 60 + 7 * (number % 31)


def payload(id: str, number: int | str) -> bytes:
    size = size_of(number)
    block = hashlib.sha256(id.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def make(meta: dict[str, Any]) -> Any:
    number = meta["key"]
    text, rest = json.dumps(meta), payload(meta["id"], number)
    form = _form(number)
    if form == 0:
        return text.encode() + b"\n" + rest
    if form == 1:
        return text + "\n" + rest.hex()
    if form == 2:
        return {"meta": meta, "payload": rest}
    return (text, rest)


def failure(meta: dict[str, Any]) -> FailedError:
    return FailedError(json.dumps(meta))


def _form(number: int | str) -> int:
    return 3 if isinstance(number, str) else number // 3 % 4


def meta_of(number: int | str, value: Any) -> dict[str, Any]:
    """What the value (or FailedError) of a key says of itself.

    Raises:
        WrongError: it is not whole.
    """
    try:
        if isinstance(value, FailedError):
            failed: dict[str, Any] = json.loads(str(value))
            return failed
        meta, rest = _taken_apart(_form(number), value)
    except Exception as exc:
        raise WrongError(f"{type(value).__name__} of {len(str(value))} characters: {exc!r}") from exc
    if rest != payload(meta["id"], number):
        raise WrongError(f"the payload of {meta} is another one, of {len(rest)} bytes")
    return meta


def _taken_apart(form: int, value: Any) -> tuple[dict[str, Any], bytes]:
    if form == 0:
        text, _, rest = value.partition(b"\n")
        return json.loads(text), rest
    if form == 1:
        text, _, rest = value.partition("\n")
        return json.loads(text), bytes.fromhex(rest)
    if form == 2:
        return value["meta"], value["payload"]
    text, rest = value
    return json.loads(text), rest
