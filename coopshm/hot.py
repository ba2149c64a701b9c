"""What a process remembers of a generation, so that its next hit needs no look-up in shared memory.

*Hot objects* are decoded values: a hit is a dict look-up and one load. By default only values that nobody can change
are kept: what one caller does to its list must not show in another's. With `hot_objects = "share"` callers promise not
to change what they get, as with functools.lru_cache. Values over shared memory are never kept: they would hold pins.

*Places* are where other entries lie. Entries of a generation do not move, so a hit is a copy, without hashing and
without a call into C. Only where the machine keeps loads in order: elsewhere the check behind the copy needs a fence.

Both are exact with respect to resets. They belong to one generation, and a hit counts only if the generation, loaded
*after* the value was found or copied, is still that one. Tables and generation are read together, as one tuple, so
that no thread can pair the table of one generation with the number of another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["ITEMS_MAX", "MISSING", "PLACES_MAX", "PROCESS_BYTES_MAX", "VALUE_BYTES_MAX", "Front", "Memory", "hot_key"]

#: Most hot objects that a process keeps per cache, the most bytes of them (as stored), and the most of one. Each worker
#: process may take that much: a hundred workers with 8 MiB each take less than a 1 GiB arena.
ITEMS_MAX: Final = 8192
PROCESS_BYTES_MAX: Final = 8 * 1024 * 1024
VALUE_BYTES_MAX: Final = 64 * 1024

#: Most places that a process remembers per cache; one takes about 300 bytes.
PLACES_MAX: Final = 16384

MISSING: Final = object()

_SCALARS: Final = frozenset((str, bytes, int, float, bool, type(None)))
_ONE_ITEM_BYTES: Final = 128  # counted for the objects around a value, so that a million empty ones are bounded too


class Words(Protocol):
    """Item 0 is the generation now. A memoryview over the segment where the machine keeps loads in order."""

    def __getitem__(self, index: int, /) -> int: ...


#: How to copy an entry's value, and its format.
Place = tuple[Callable[[], bytes], int]

#: What a hit needs, read as one: words, generation, hot objects, places, and the counts of hits (hot, by place). A
#: plain tuple, which unpacks faster than a named one.
Front = tuple[Words, int, dict[object, object], dict[object, Place], list[int]]


def hot_key(key: object, data: bytes) -> object:
    """Return what stands for a key in the tables; `data` is its encoding.

    str, int and bytes stand for themselves: a table holds no keys of other types that equal them. Everything else,
    where 1, True and 1.0 would be one, stands as its encoding.
    """
    kind = type(key)
    return key if kind is str or kind is int or kind is bytes else (data,)


class Memory:
    """What one process remembers of one cache.

    Args:
        mode: True to keep immutable values as hot objects, "share" for all, False for none.
    """

    def __init__(self, mode: bool | str, words: Words) -> None:
        self._mode = mode
        self.hits = [0, 0]
        self.front: Front = (words, 0, {}, {}, self.hits)  # no generation is 0
        self._sizes: dict[object, int] = {}
        self._bytes = 0

    def _front_of(self, words: Words, generation: int) -> Front:
        if self.front[1] != generation or self.front[0] is not words:
            self._sizes, self._bytes = {}, 0
            self.front = (words, generation, {}, {}, self.hits)
        return self.front

    def keep(self, words: Words, generation: int, at: object, value: object, size: int, own: bool) -> bool:
        """Keep `value`, which is the cache's in `generation`, if it may be kept.

        Args:
            at: the `hot_key` of its key.
            size: bytes it takes encoded.
            own: it is what `fn` returned here, not a decoded copy.
        """
        if not self._mode or size > VALUE_BYTES_MAX:
            return False
        if not (_is_immutable(value) or (self._mode == "share" and not own)):
            return False
        table = self._front_of(words, generation)[2]
        if at in table:
            return True
        table[at] = value
        self._sizes[at] = size
        self._bytes += size + _ONE_ITEM_BYTES
        while self._bytes > PROCESS_BYTES_MAX or len(table) > ITEMS_MAX:
            oldest = next(iter(self._sizes), None)
            if oldest is None:
                break
            self._bytes -= self._sizes.pop(oldest, 0) + _ONE_ITEM_BYTES
            table.pop(oldest, None)
        return True

    def remember(self, words: Words, generation: int, at: object, place: Place) -> None:
        """Remember where the entry of a key lies in `generation`."""
        places = self._front_of(words, generation)[3]
        if len(places) >= PLACES_MAX:
            places.pop(next(iter(places), None), None)
        places[at] = place

    def drain(self) -> tuple[int, int]:
        """Return the hits counted since the last time: of hot objects, and by place."""
        hot, placed = self.hits
        self.hits[0] -= hot  # not "= 0": another thread may have counted in between
        self.hits[1] -= placed
        return hot, placed

    def forget_hits(self) -> None:
        """A forked child begins with no hits of its own."""
        self.hits[:] = 0, 0


def _is_immutable(value: object) -> bool:
    kind = type(value)
    return kind in _SCALARS or (kind is tuple and all(map(_is_immutable, value)))  # type: ignore[call-overload]
