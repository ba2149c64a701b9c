"""Calls of the cache in one process, each written down with the stamps that were seen first and last in it.

To see how computations end and what resets come to, `publish` and `reset_commit` of the process's segments are wrapped
in Python. Nothing is changed in what they do.
"""

from __future__ import annotations

import os
import random
import time
import traceback
from collections.abc import Callable
from typing import Any

import coopshm
from coopshm import _segment, once
from coopshm.errors import BusyError, WaitTimeout
from tests import raw

from . import goods, source
from .events import Log, Stamp, now


class Caller:
    """One per process."""

    def __init__(self, host: str, life: str, seed: str, log: Log) -> None:
        self.host, self.life, self.log = host, life, log
        self.rng = random.Random(seed)
        self.caches = {name: coopshm.open(name) for name in goods.MANY}
        self._number = 0
        self._under_way: list[str] = []  # ids of computations, the outermost first
        self._asked: list[tuple[int, int]] = []  # when the calls around began, and the sidecar had last looked
        self._committed: Stamp | None = None
        self._schedstat = os.open("/proc/self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        _segment.Segment.publish = self._watched(_segment.Segment.publish)  # type: ignore[method-assign]
        _segment.Segment.reset_commit = self._noted(_segment.Segment.reset_commit)  # type: ignore[method-assign]

    def _watched(self, original: Callable[..., int]) -> Callable[..., int]:
        def publish(segment: Any, call: Any, *arguments: Any) -> int:
            before = now()
            code = original(segment, call, *arguments)
            if self._under_way:
                self.log.write("computed", id=self._under_way.pop(), before=before, at=now(), code=code)
            return code

        return publish

    def _noted(self, original: Callable[..., None]) -> Callable[..., None]:
        def reset_commit(segment: Any, version: bytes, counter: int = 0) -> None:
            original(segment, version, counter)
            self._committed = stamp_of(segment)  # nobody else resets before the reset lock is let go

        return reset_commit

    def starved(self) -> int:
        """Nanoseconds for which this process was runnable and had no CPU."""
        return int(os.pread(self._schedstat, 64, 0).split()[1])

    # ---- calls

    def call(self, cache: str, number: int | str, how: str = "cached", **options: Any) -> dict[str, Any] | None:
        """Ask, check, write down; what the value says of itself, if one came."""
        segment = self.caches[cache]._attachment.segment
        outer = len(self._under_way)
        starved, looked, begin = self.starved(), raw.sidecar_seen(self.caches[cache]), now()
        before = stamp_of(segment)
        came, text, meta = "value", "", None
        self._asked.append((begin, looked))
        try:
            if how == "get":
                value = self.caches[cache].get(goods.key_of(number), self)
            else:
                value = self.caches[cache].cached(
                    goods.key_of(number),
                    lambda: self._compute(cache, number, segment, options.get("timeout")),
                    **options,
                )
            if value is self:
                came = "nothing"
            else:
                meta = goods.meta_of(number, value)
        except goods.FailedError as exc:
            came, meta = "failure", goods.meta_of(number, exc)
        except WaitTimeout:
            came = "nothing"
        except goods.WrongError as exc:
            came, text = "wrong", str(exc)
        except Exception:
            came, text = "error", traceback.format_exc()
        finally:
            self._asked.pop()
        after = stamp_of(segment)
        while len(self._under_way) > outer:
            self.log.write("computed", id=self._under_way.pop(), before=now(), at=now(), code="alone")
        self.log.write(
            "call", who=self.life, host=self.host, how=how, cache=cache, key=number, begin=begin, end=now(),
            before=before, after=after, came=came, meta=meta, text=text, starved=self.starved() - starved,
        )  # fmt: skip
        return meta

    def _compute(self, cache: str, number: int | str, segment: Any, patience: float | None) -> Any:
        at = now()
        asked, looked = self._asked[-1]
        self._number += 1
        id = f"{self.life}/{self._number}"
        call = once.frames.get()[-1].call
        ticket = int(call.ticket.generation) if call is not None else 0
        seen = segment.stamp()
        stamp = stamp_of(segment) if ticket in (0, seen.generation) else None
        if ticket and seen.generation != segment.stamp().generation:
            stamp = None  # between the two looks
        nested = len(self._asked) > 1
        version = source.version() if cache == "roomy" else None
        meta = {"id": id, "cache": cache, "key": number, "at": at, "stamp": stamp, "source": version}
        self._under_way.append(id)
        self.log.write(
            "computes", who=self.life, host=self.host, asked=asked, looked=looked, nested=nested, patience=patience,
            ticket=ticket, **meta,
        )  # fmt: skip
        if isinstance(number, str):  # a probe
            return goods.make(meta)
        chance = self.rng.random()
        if chance < 0.6:
            time.sleep(self.rng.expovariate(1 / (0.004 if chance < 0.45 else 0.1)))
        if chance > 0.8 and number + 1 < goods.MANY[cache]:  # of a greater key, so never in a circle
            self.call(cache, self.rng.randrange(number + 1, goods.MANY[cache]))
        if not ticket:
            self.log.write("computed", id=self._under_way.pop(), before=now(), at=now(), code="alone")
        chance = self.rng.random()
        if chance < 0.08:
            raise goods.failure(meta)
        value = goods.make(meta)
        return coopshm.NoCache(value) if chance < 0.14 else value

    # ---- resets

    def reset(self, cache: str, version: object = None, wait: float | None = None) -> None:
        """Reset, and write down what it came to."""
        self._committed = None
        begin, text = now(), ""
        self.log.write("resets", who=self.life, cache=cache, at=begin)
        try:
            if wait is None:
                self.caches[cache].reset(version)
            else:
                self.caches[cache].reset(version, wait=wait)
            done = "yes" if self._committed else "nothing to do"
        except BusyError:
            done = "busy"
        except RuntimeError as exc:
            done = "callback"
            if "up to date" not in str(exc):
                done, text = "error", traceback.format_exc()
        except Exception:
            done, text = "error", traceback.format_exc()
        self.log.write(
            "reset", who=self.life, host=self.host, cache=cache, begin=begin, end=now(), stamp=self._committed,
            done=done, text=text,
        )  # fmt: skip


def stamp_of(segment: Any) -> Stamp:
    stamp = segment.stamp()
    return (stamp.counter, stamp.version.decode(), stamp.origin)
