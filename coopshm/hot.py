"""Hot objects: decoded values that a process has kept, so that its next hit needs no look-up in shared memory.

By default only values that nobody can change are kept: what one caller does to its list must not show in another's.
With `hot_objects = "share"` callers promise not to change what they get, as with functools.lru_cache. Values over
shared memory are never kept: they would hold pins.

Exact with respect to resets: the tables belong to one generation of one segment. The way of a hit (csrc/python/front.c)
looks into them, and believes what it found only if the generation, loaded afterwards, is still theirs. Whoever adds a
value names the tables of the generation that it was found in, so a late thread writes into tables that nobody reads.
"""

from __future__ import annotations

import sys
from itertools import repeat
from typing import Final, NamedTuple, cast

__all__ = ["ITEMS_MAX", "MISSING", "PROCESS_BYTES_MAX", "SHARE", "VALUE_BYTES_MAX", "Tables", "is_immutable", "mode"]

#: Most hot objects that a process keeps per cache, the most bytes of them (as stored), and the most of one. Each worker
#: process may take that much: a hundred workers with 8 MiB each take less than a 1 GiB arena.
ITEMS_MAX: Final = 8192
PROCESS_BYTES_MAX: Final = 8 * 1024 * 1024
VALUE_BYTES_MAX: Final = 64 * 1024

#: Levels of tuples that are looked into: more than this, and Python's or C's stack might end before they do.
LEVELS_MAX: Final = 32

#: What front.c calls `hot_objects = "share"`.
SHARE: Final = 2

MISSING: Final = object()

_SCALARS: Final = frozenset((str, bytes, int, float, bool, type(None)))
_ONE_ITEM_BYTES: Final = 128  # counted for the objects around a value, so that a million empty ones are bounded too


def mode(hot_objects: object) -> int:
    """Return the setting as front.c takes it: 0 nothing is kept, 1 what is immutable, SHARE.

    Nothing under `python -b`, where a dict that has "k" and is asked for b"k" warns, and so runs anybody's code in the
    middle of the look-up, which a hit does without a reference of its own to the dict.
    """
    if sys.flags.bytes_warning:
        return 0
    return SHARE if hot_objects == "share" else int(bool(hot_objects))


class _Item(NamedTuple):
    table: dict[object, object]
    bytes: int


class Tables:
    """The hot objects of one generation."""

    __slots__ = ("_bytes", "_items", "others", "scalars")

    def __init__(self) -> None:
        self.scalars: dict[object, object] = {}  # by key: str, bytes, int
        self.others: dict[object, object] = {}  # by key: a pair of the key, whose types count, and the value
        self._items: dict[object, _Item] = {}  # in the order in which they came; by key and kind
        self._bytes = 0

    def keep(self, key: object, value: object, size: int) -> None:
        """Keep `value`, of `size` bytes as stored, and drop the oldest ones when that is too much."""
        kind = type(key)
        scalar = kind is str or kind is int or kind is bytes
        table = self.scalars if scalar else self.others
        item = (scalar, key)
        if key in table:
            return  # or another key that only a dict takes for the same one, such as (True,) for (1,)
        table[key] = value if scalar else (key, value)
        self._items[item] = _Item(table, size)
        self._bytes += size + _ONE_ITEM_BYTES
        while self._bytes > PROCESS_BYTES_MAX or len(self._items) > ITEMS_MAX:
            oldest = next(iter(self._items), None)
            found = self._items.pop(oldest, None) if oldest is not None else None
            if oldest is None or found is None:
                break
            self._bytes -= found.bytes + _ONE_ITEM_BYTES
            found.table.pop(oldest[1], None)  # type: ignore[index]


def is_immutable(value: object, levels: int = LEVELS_MAX) -> bool:
    """Whether it is plain that nobody can change `value`, nor anything in it. Many levels of tuples are not plain."""
    kind = type(value)
    if kind is not tuple:
        return kind in _SCALARS
    return levels > 0 and all(map(is_immutable, cast("tuple[object, ...]", value), repeat(levels - 1)))
