"""keys, get: what is stored. They take no lock, pin nothing, and are not counted as hits."""

from __future__ import annotations

import ast
import collections
import heapq
import itertools
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator

import click

from .. import keys
from .._segment import EntryInfo, Segment
from ..errors import InvalidKeyError
from . import segments
from .session import NothingError, Session, complain, json_option, name_argument
from .stored import FORMATS, Stored, decode, may_decode
from .text import Cell, Line, Table, count, number

__all__ = ["COMMANDS", "parse_key"]

#: Long enough for the literal of any key: no character of it stands for less than a tenth of a byte.
_WHOLE_KEY = keys.MAX_KEY_BYTES * 10

#: Characters of a value that are shown, unless told otherwise.
_SHOWN = 10_000


# ---- keys as they are written on the command line


class _Numbers(ast.NodeTransformer):
    """inf and nan, which `repr` writes and `literal_eval` does not know."""

    def visit_Name(self, node: ast.Name) -> ast.expr:  # the name is ast's
        return ast.Constant(float(node.id)) if node.id in ("inf", "nan") else node


def parse_key(text: str) -> object:
    """Return the key that `text` stands for: a Python literal as `keys` writes it, else the string `text` itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is no Python at all
            key: object = ast.literal_eval(_Numbers().visit(ast.parse(text, mode="eval").body))
        keys.encode_key(key)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text  # also a literal of something that no key can be, such as a list
    return key


def _take_long_numbers() -> None:
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)  # the length of keys is limited already


# ---- keys


_Filter = Callable[[bytes], bool]
_Order = Callable[[EntryInfo], tuple[int, str]]

#: What entries can be sorted by: the size of the value with the largest first, or the key as it is shown.
_ORDERS: dict[str, _Order] = {
    "size": lambda entry: (-entry.value_bytes, ""),
    "key": lambda entry: (0, keys.preview(entry.key, _WHOLE_KEY)),
}


class _Selection:
    """Which entries of a cache are wanted, and how many there are."""

    def __init__(self, segment: Segment, wanted: list[_Filter], order: _Order | None, reverse: bool, limit: int | None):
        """Go through the entries of one generation. With a limit, no more of them are kept than will be shown."""
        self._segment = segment
        self._wanted = wanted
        self._complete = False
        while not self._complete:  # else a reset came
            self.total = self.matching = 0
            self.entries = self._pick(order, reverse, limit)

    def _pick(self, order: _Order | None, reverse: bool, limit: int | None) -> list[EntryInfo]:
        found = self._matching(self._segment.generation())
        if order and limit:
            best = heapq.nlargest if reverse else heapq.nsmallest
            return best(limit, found, key=order)
        if order:
            return sorted(found, key=order, reverse=reverse)[:limit]
        if reverse:
            return list(found)[::-1][:limit]
        shown = list(itertools.islice(found, limit))
        collections.deque(found, maxlen=0)  # the rest is counted
        return shown

    def _matching(self, generation: int) -> Iterator[EntryInfo]:
        cursor = 0
        while batch := self._segment.entries_from(generation, cursor):
            entries, cursor = batch
            if not entries:
                self._complete = True
                return
            for entry in entries:
                self.total += 1
                if all(holds(entry.key) for holds in self._wanted):
                    self.matching += 1
                    yield entry


@click.command("keys")
@name_argument
@click.option("--match", metavar="TEXT", help="Only keys that, as they are shown, contain TEXT.")
@click.option(
    "--regex", metavar="RE", help="Only keys that, as they are shown, match the regular expression somewhere."
)
@click.option(
    "--prefix",
    metavar="P",
    help="Only strings (and bytes) that begin with P, and tuples whose first item is P or begins with it.",
)
@click.option(
    "--sort",
    type=click.Choice(["stored", *_ORDERS]),
    default="stored",
    show_default=True,
    help="In the order in which they were stored, by the size of the value with the largest first, or by key.",
)
@click.option("--reverse", is_flag=True, help="The other way round.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Show only the first N.")
@json_option
@click.pass_obj
def _keys(
    session: Session,
    name: str,
    match: str | None,
    regex: str | None,
    prefix: str | None,
    sort: str,
    reverse: bool,
    limit: int | None,
) -> None:
    """List the keys of cache NAME, with the size of each value.

    Keys are written as Python literals; long ones are shortened, except with --json, and so that each can be given to
    `get` as it stands. Filters look at the whole key, and all that are given must hold.
    """
    place = session.place(name)
    _take_long_numbers()
    wanted = _filters(match, regex, prefix)
    found = _Selection(segments.attach(place), wanted, _ORDERS.get(sort), reverse, limit)
    document = [
        {
            "key": keys.preview(entry.key, _WHOLE_KEY),
            "value_bytes": entry.value_bytes,
            "format": FORMATS.get(entry.format, "unknown"),
        }
        for entry in found.entries
    ]
    rows: list[list[str | Cell]] = [
        [number(entry.value_bytes), FORMATS.get(entry.format, "unknown"), Cell(keys.preview(entry.key), "key")]
        for entry in found.entries
    ]
    blocks: list[Table | Line] = [Table(["VALUE BYTES", "FORMAT", "KEY"], rows, "rll")] if rows else []
    if not found.total:
        blocks = [Line(f"{place} is empty")]
    elif not found.matching:
        blocks = [Line(f"{place} has {count(found.total, 'key', 'keys')}, none of them like that")]
    elif len(found.entries) < found.matching:
        blocks.append(Line(f"... and {found.matching - len(found.entries)} more", "dim"))
    numbers = {"entries": found.total, "matching": found.matching}
    session.print({**place._asdict(), **numbers, "keys": document}, *blocks)


def _filters(match: str | None, regex: str | None, prefix: str | None) -> list[_Filter]:
    """Return what must hold of an encoded key."""
    found: list[_Filter] = []
    if match is not None:
        found.append(lambda key: match in keys.preview(key, _WHOLE_KEY))
    if regex is not None:
        try:
            pattern = re.compile(regex)
        except re.error as exc:
            raise click.BadParameter(f"{regex!r} is no regular expression: {exc}", param_hint="--regex") from exc
        found.append(lambda key: pattern.search(keys.preview(key, _WHOLE_KEY)) is not None)
    if prefix is not None:
        found.append(lambda key: _begins_with(key, prefix))
    return found


def _begins_with(data: bytes, prefix: str) -> bool:
    try:
        first = keys.decode_key(data)
    except ValueError:
        return False
    while isinstance(first, tuple) and first:
        first = first[0]
    if isinstance(first, bytes):
        return first.startswith(prefix.encode("utf-8", "surrogateescape"))
    return isinstance(first, str) and first.startswith(prefix)


# ---- get


@click.command("get", context_settings={"ignore_unknown_options": True})  # -1 is a key
@name_argument
@click.argument("key")
@click.option("--text", is_flag=True, help="KEY is a string, even if it could be read as a literal.")
@click.option(
    "--raw", is_flag=True, help="Write the bytes of the stored value to stdout, as they are, and nothing else."
)
@click.option(
    "--trust",
    is_flag=True,
    help="Decode the value even where decoding may run code that somebody else has put there: see above.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=_SHOWN,
    show_default=True,
    metavar="N",
    help="Characters of the value to show; 0 for all of them.",
)
@json_option
@click.pass_obj
def _get(session: Session, name: str, key: str, text: bool, raw: bool, trust: bool, limit: int) -> None:
    """Print the value that cache NAME has stored for KEY.

    KEY is a Python literal, as `keys` writes it; what is no literal is a string. So 42 is a number, '42' (with
    quotes, which the shell must not take away) or --text 42 a string, and ('product', 42) a tuple.

    Nothing is computed, and the look is not counted as a hit. The value is printed as Python would (repr).

    Unpickling can run any code that whoever wrote the segment wanted to be run, with the rights of whoever runs this.
    So a pickle is decoded only if the segment is your own and nobody else can write to it; of any other this shows
    size, format and a dump of the first bytes, unless --trust is given. That goes for root, too: root looking at
    another user's cache would run that user's code. Strings, bytes, JSON, MessagePack and arrays are always decoded.
    Values of the application's own serializer are shown as bytes; with --trust, it is imported as the configuration
    says and decodes them. With --trust, the current directory is on the module path.

    \b
    Examples:
      coopshm-admin get pages index
      coopshm-admin get pages "('product', 42)"
      coopshm-admin get thumbnails --raw 17 > 17.png
    """
    if raw and session.json:
        raise click.UsageError("--raw and --json exclude each other")
    place = session.place(name)
    _take_long_numbers()
    wanted: object = key if text else parse_key(key)
    try:
        encoded = keys.encode_key(wanted)
    except InvalidKeyError as exc:
        raise click.BadParameter(str(exc), param_hint="KEY") from exc
    segment = segments.attach(place)
    found = segment.peek(encoded)
    if found is None:
        hint = ""
        if not isinstance(wanted, str) and segment.peek(keys.encode_key(key)) is not None:
            hint = f"; it has one of the string {key!r}: write --text {key}"
        raise NothingError(f"{place} has no value of the key {keys.preview(encoded)}{hint}")
    stored = Stored(*found)
    if raw:
        sys.stdout.buffer.write(stored.data)
        return
    reason = may_decode(stored, segment.status(), trust)
    if trust and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # where the application's modules are
    settings = session.config.caches.get(name)
    shown = decode(stored, settings.serializer if settings and trust else None) if reason is None else None
    document: dict[str, object] = {
        **place._asdict(),
        "key": keys.preview(encoded, _WHOLE_KEY),
        "format": stored.name,
        "value_bytes": len(stored.data),
        "decoded": shown is not None,
        "why_not": reason,
        "type": shown.type if shown else None,
        "value": shown.text if shown else None,
    }
    if session.json:
        session.print(document)
        return
    if shown is None:
        session.print(document, *stored.dump(), f"not decoded: {reason}; --raw writes its bytes")
        return
    whole = shown.text
    click.echo(whole[:limit] if limit else whole)
    if 0 < limit < len(whole):
        complain(f"{len(whole) - limit} more characters are not shown; --limit 0 for all")


COMMANDS = (_keys, _get)
