"""One cache as a store: attached, looked into, with the hot objects of this process. Computes nothing.

The way of a hit (csrc/python/front.c) is the base class. Here is what it calls, and the same look-up at leisure: copy
or pin, check the generation, decode, check again, return. A hit takes no lock and writes nothing that others read.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from ._front import Front
from ._segment import Segment
from .attachment import Attachment
from .config import CacheConfig
from .forks import forks
from .hot import MISSING, SHARE, VALUE_BYTES_MAX, Tables, is_immutable, mode
from .limits import Limit, check_on_timeout, check_timeout
from .values import BYTES, OVER_MEMORY, Codec, codec

__all__ = ["Store"]

#: Values that refer to their payload come back over shared memory from this size on, in bytes; below, over a copy. A
#: pin, with its view object, costs about as much as copying this much.
_PIN_FROM: Final = 16 * 1024


class _Hot(NamedTuple):
    segment: Segment
    generation: int
    tables: Tables


class Store(Front):
    """One cache. `cached` and `_hit` are `Front`'s."""

    def __init__(self, namespace: str, config: CacheConfig) -> None:
        self.name: Final = config.name
        self._codec: Final[Codec] = codec(config.serializer)
        self._decode: Final = self._codec.decode
        self._hot_mode: Final = mode(config.hot_objects)
        self._timeout: Final = config.timeout
        self._on_timeout: Final = config.on_timeout
        self._hot: _Hot | None = None
        self._last_hot: _Hot | None = None
        self._told: tuple[int, int, set[int]] = (-1, -1, set())
        super().__init__(self._decode, self._codec.loads, self._hot_mode, VALUE_BYTES_MAX)
        self._attachment: Final = Attachment(namespace, config, entered=self._arrive)

    # ---- what front.c calls

    def _limit(self, timeout: object, on_timeout: object) -> Limit | None:
        """How long a call waits that says this; None: without limit."""
        seconds = self._timeout if timeout is None else check_timeout(timeout)
        then = self._on_timeout if on_timeout is None else check_on_timeout(on_timeout)
        return None if seconds is None or seconds == math.inf else Limit(seconds, then == "compute")

    def _look(self) -> None:
        """After many hits: see whether the segment still has its name, since hits alone never would."""
        self._attachment.segment.gone()

    def _keep(self, tables: Tables, key: object, value: object, size: int) -> None:
        tables.keep(key, value, size)

    def _arrive(self, segment: Segment, generation: int) -> None:
        """This process has come to a generation: its hooks have run. Under the attachment's lock."""
        hot = _Hot(segment, generation, Tables())
        self._last_hot = self._hot  # to free thousands of objects takes a millisecond: the next miss does that
        self._attach(segment.addresses, segment.handle)
        self._enter(generation, hot.tables, hot.tables.scalars, hot.tables.others)
        self._hot = hot

    def _missed(self) -> None:
        """What can wait until there is a miss."""
        self._last_hot = None
        self._settle()

    def _is_first(self, stat: int, generation: int) -> bool:
        """Is this the first time that this process asks so in this generation? So that it tells of it once."""
        process = forks()
        if self._told[:2] != (process, generation):
            self._told = (process, generation, set())
        told = self._told[2]
        first = stat not in told
        told.add(stat)
        return first

    # ---- looking up

    def _look_up(self, data: bytes, key: object = MISSING) -> object:
        """Return the stored value, or MISSING; as a hot object from now on, if `key` is given and it may be one."""
        attachment = self._attachment
        segment = attachment.segment
        generation = segment.generation()
        if attachment.seen != (segment, generation):
            segment, generation = attachment.notice()
        found = segment.find(data)
        if found == 0:
            return MISSING
        format, size = found & 31, (found >> 5) & 0x3FFFFF
        payload: bytes | memoryview
        copied = False
        if found > 0 and (format not in OVER_MEMORY or size < _PIN_FROM):
            start = found >> 27 << 4
            payload = segment.memory[start : start + size].tobytes()
            copied = True
        else:
            view = segment.view(data)
            if view is None:
                return MISSING
            format, payload = view
            if format not in OVER_MEMORY:
                payload = payload.tobytes()
        if segment.generation() != generation:  # perhaps torn: nothing is decoded that was not checked
            return MISSING
        value = payload if format == BYTES else self._decode(format, payload)
        if copied and key is not MISSING and (self._hot_mode == SHARE or is_immutable(value)):
            self._keep_in(segment, generation, key, value, size)
        # Last: a decoder, or the destructor of what had to give way, may have seen a reset return.
        return value if segment.generation() == generation else MISSING

    def _keep_in(self, segment: Segment, generation: int, key: object, value: object, size: int) -> None:
        hot = self._hot
        if hot and self._hot_mode and size <= VALUE_BYTES_MAX and hot[:2] == (segment, generation):
            hot.tables.keep(key, value, size)
