"""Hot objects: decoded values that this process keeps, so that its next hit is a dict look-up and one load.

They are exact with respect to resets: a table belongs to one generation, and a hit counts only if the generation,
loaded *after* the value was found, is still that one. Table and generation are read together, as one tuple, so that no
thread can pair the table of one generation with the number of another.

Only values that nobody can change are kept by default: what one caller does to its list must not show in another's.
With `hot_objects = "share"` callers promise not to change what they get, as with functools.lru_cache. Values over
shared memory are never kept: they would hold pins.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

__all__ = ["ITEMS_MAX", "MISSING", "PROCESS_BYTES_MAX", "VALUE_BYTES_MAX", "Front", "HotObjects", "hot_key"]

#: Most values that a process keeps per cache, the most bytes of them (as stored), and the most of one. Each worker
#: process may take that much: a hundred workers with 8 MiB each take less than a 1 GiB arena.
ITEMS_MAX: Final = 8192
PROCESS_BYTES_MAX: Final = 8 * 1024 * 1024
VALUE_BYTES_MAX: Final = 64 * 1024

MISSING: Final = object()

_SCALARS: Final = frozenset((str, bytes, int, float, bool, type(None)))
_ONE_ITEM_BYTES: Final = 128  # counted for the objects around a value, so that a million empty ones are bounded too


class Words(Protocol):
    """Item 0 is the generation now. A memoryview over the segment where the machine keeps loads in order."""

    def __getitem__(self, index: int, /) -> int: ...


class Front(NamedTuple):
    """What a hit needs, read as one."""

    words: Words
    generation: int
    table: dict[object, object]
    hits: list[int]


def hot_key(key: object, data: bytes) -> object:
    """Return what stands for a key in a table; `data` is its encoding.

    str, int and bytes stand for themselves: a table holds no keys of other types that equal them. Everything else,
    where 1, True and 1.0 would be one, stands as its encoding.
    """
    kind = type(key)
    return key if kind is str or kind is int or kind is bytes else (data,)


class HotObjects:
    """The hot objects of one cache in one process.

    Args:
        mode: True to keep immutable values, "share" for all, False for none.
    """

    def __init__(self, mode: bool | str, words: Words) -> None:
        self._mode = mode
        self.hits = [0]
        self.front = Front(words, 0, {}, self.hits)  # no generation is 0
        self._bytes = 0
        self._sizes: dict[object, int] = {}

    def keep(self, words: Words, generation: int, key: object, value: object, size: int, own: bool) -> None:
        """Keep `value`, which is the cache's in `generation`, if it may be kept.

        Args:
            size: bytes it takes encoded.
            own: it is what `fn` returned here, not a decoded copy.
        """
        if (
            not self._mode
            or size > VALUE_BYTES_MAX
            or not (_is_immutable(value) or (self._mode == "share" and not own))
        ):
            return
        front = self.front
        if front.generation != generation or front.words is not words:
            self._sizes, self._bytes = {}, 0
            front = self.front = Front(words, generation, {}, self.hits)
        if key in front.table:
            return
        front.table[key] = value
        self._sizes[key] = size
        self._bytes += size + _ONE_ITEM_BYTES
        while self._bytes > PROCESS_BYTES_MAX or len(front.table) > ITEMS_MAX:
            oldest = next(iter(self._sizes), None)
            if oldest is None:
                break
            self._bytes -= self._sizes.pop(oldest, 0) + _ONE_ITEM_BYTES
            front.table.pop(oldest, None)

    def drain(self) -> int:
        """Return the hits counted since the last time."""
        n = self.hits[0]
        self.hits[0] -= n  # not "= 0": another thread may have counted in between
        return n

    def forget(self) -> None:
        """A forked child begins with no hits of its own."""
        self.hits[0] = 0


def _is_immutable(value: object) -> bool:
    kind = type(value)
    return kind in _SCALARS or (kind is tuple and all(map(_is_immutable, value)))  # type: ignore[call-overload]
