"""A call of the cache as the soak makes it: noted before and behind, its value checked.

A call's moment of return is the clock before its last look at the generation, as in tests/test_reset.py. Two checks
rest on it. Here and at once: a value was computed in the very generation that the call saw last. In checks.py, over all
histories: it is not older than a reset that had returned by then (P2).

To see these looks, and how computations end, a worker's segment is wrapped in Python where it reads the generation,
finds, publishes and commits a reset. Nothing is changed in what these do, but they may take longer: what can only go
wrong between two instructions is tried with a pause there.
"""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from coopshm import Cache, NoCache, _segment, objects
from coopshm import once as coopshm_once
from coopshm.config import Config
from coopshm.errors import DecodeError, WaitTimeout

from . import goods, records
from .records import ALARM, BEGIN, CACHED, END, GET, KILL, PUBLISH, STOP, VIEW, Board, Log, now
from .sniper import Sniper

_HELD_MAX = 6


class Interrupt(BaseException):
    """Raised by a signal handler, at any instruction of a call."""


class Stamped:
    """Looks at the generation, and notes the clock before it does, and what it saw."""

    __slots__ = ("doze", "last", "seen", "words")

    def __init__(self, words: Any, doze: Callable[[], None]) -> None:
        self.words, self.doze, self.last, self.seen = words, doze, 0, 0

    def __getitem__(self, index: int) -> int:
        self.doze()
        self.last = now()
        self.seen = seen = int(self.words[index])
        self.doze()
        return seen

    def look(self) -> int:
        return self[0]


class Held(NamedTuple):
    value: Any
    key: int
    generation: int
    until: int


class Shared(NamedTuple):
    """What all processes of a soak share."""

    seed: int
    log: Log
    board: Board
    configs: tuple[Config, ...]  # the same cache, with other hot objects
    signals: bool


_current: list[Caller] = []  # the worker of this process


def _note_publish(original: Callable[..., int]) -> Callable[..., int]:
    def publish(self: Any, call: Any, *args: Any) -> int:
        if not _current:  # the process that looks on
            return original(self, call, *args)
        ticket = (int(call.ticket.generation), int(call.ticket.serial))
        before = _current[0].publishing()
        code = _current[0].core(original, self, call, *args)
        _current[0].published(ticket, before, code)
        return code

    return publish


def _note_commit(original: Callable[..., None]) -> Callable[..., None]:
    def reset_commit(self: Any, version: bytes, counter: int = 0) -> None:
        if not _current:
            return original(self, version, counter)
        _current[0].core(original, self, version, counter)
        _current[0].own_reset = int(_current[0].stamp.words[0])  # before any other: the reset lock is still held
        return None

    return reset_commit


def _aim_at(original: Callable[..., Any]) -> Callable[..., Any]:
    def aimed(*args: Any) -> Any:
        return _current[0].core(original, *args) if _current else original(*args)

    return aimed


def _report_unlink(original: Callable[..., None]) -> Callable[..., None]:
    def unlink_shared_memory(name: str) -> None:
        if _current:  # nobody has a reason to
            _current[0].fault("unlinked", f"{name}: {''.join(traceback.format_stack())}")
        original(name)

    return unlink_shared_memory


def prepare() -> None:
    """Once per soak, before workers are forked."""
    _segment.Segment.publish = _note_publish(_segment.Segment.publish)  # type: ignore[method-assign]
    _segment.Segment.reset_commit = _note_commit(_segment.Segment.reset_commit)  # type: ignore[method-assign]
    posix_ipc = objects.posix_ipc
    posix_ipc.unlink_shared_memory = _report_unlink(posix_ipc.unlink_shared_memory)  # type: ignore[assignment]
    for name in ("claim", "release", "outcome", "view"):
        setattr(_segment.Segment, name, _aim_at(getattr(_segment.Segment, name)))


def is_sniper(who: int) -> bool:
    """Does this life end itself?"""
    return who >> 16 & 3 == 2


class Caller:
    def __init__(self, shared: Shared, slot: int, who: int) -> None:
        self.log, self.board, self.slot, self.who = shared.log, shared.board, slot, who
        self.seed = shared.seed
        life = who >> 16
        self.rng = rng = random.Random(shared.seed << 64 | who)
        self.depth = self.child = self.hooked = self.hooked_from = 0
        self.busy = self.is_child = self.leaving = False
        self.own_reset = 0
        self.sniper: Sniper | None = None
        self.children: list[int] = []
        self.held: list[Held] = []
        self.open: list[tuple[int, int, int]] = []  # computations under way: key, ticket's generation, begin
        _current[:] = [self]
        self._read_delay()
        if is_sniper(who):
            self.be_sniper(0, 6)
        config = shared.configs[rng.randrange(len(shared.configs))]
        self.cache = Cache(config.namespace, config.cache("soak"))
        segment = self.cache._attachment.segment
        self.stamp = Stamped(segment.words, self.doze)
        find = segment._find
        if rng.random() < 0.5:  # before words are replaced: a hook sees the same generations as all else
            self.cache.on_reset(self.hook)
            self.hooked_from = self.cache._attachment.seen[1]
        segment.words = self.stamp
        segment.generation = self.stamp.look
        segment._find = lambda key, size: (self.stamp[0], find(key, size), self.doze(0.02, 0.004))[1]
        if not shared.signals:  # what a handler raises would be lost in a callback
            self.look_on_hits(segment)
        if shared.signals and life % 4 == 3:
            signal.signal(signal.SIGALRM, self.on_alarm if life % 8 == 7 else lambda *_: None)
            signal.setitimer(signal.ITIMER_REAL, rng.random() * 0.02, 0.001 + rng.random() * 0.01)

    def look_on_hits(self, segment: Any) -> None:
        """Have the way of a hit, which is in C, pass here between its look-up and its copy."""
        lib, ffi = _segment.lib, _segment.ffi

        def find(handle: Any, key: Any, size: int) -> int:
            found = lib.csm_find(handle, key, size)
            self.stamp.last = now()
            self.doze(0.02, 0.004)
            return int(found)

        self.callback = ffi.callback("int64_t(void *, char *, size_t)", find)
        segment.addresses = (int(ffi.cast("uintptr_t", self.callback)), *segment.addresses[1:])
        self.cache._arrive(*self.cache._attachment.seen)

    def _read_delay(self) -> None:
        self._schedstat = os.open("/proc/self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def delay(self) -> int:
        """Nanoseconds for which this process was runnable and had no CPU."""
        return int(os.pread(self._schedstat, 64, 0).split()[1])

    def on_alarm(self, *_: Any) -> None:
        if self.busy:
            self.busy = False  # one is enough
            self.log.write(ALARM, self.who, begin=now())
            raise Interrupt

    def hook(self, _: object) -> None:
        self.hooked = int(self.stamp.words[0])

    def fault(self, what: str, text: str) -> None:
        self.log.fault(what, self.who, text)

    def core(self, original: Callable[..., Any], *args: Any) -> Any:
        self.doze()
        if self.sniper:
            pieces = args[-1] if original.__name__ == "publish" else ()
            self.sniper.aim(sum(map(len, pieces)))
        found = original(*args)
        self.doze()
        return found

    def doze(self, chance: float = 0.003, seconds: float = 0.001) -> None:
        """Now and then, have no CPU for a while, as if the scheduler had come to that."""
        if self.rng.random() < chance:
            time.sleep(self.rng.expovariate(1 / seconds))

    def be_sniper(self, first: int, last: int) -> None:
        """End in one of the next calls of the core, or stop there, perhaps with the lock or in the middle of a copy."""
        number = signal.SIGSTOP if self.rng.random() < 0.2 and not self.is_child else signal.SIGKILL
        shot = self.rng.randrange(first, last)
        # Announced, since the herd sees it late on a busy machine, or never when it kills the stopped one.
        kind = STOP if number == signal.SIGSTOP else KILL
        self.sniper = Sniper(number, shot, self.rng, lambda: self.log.write(kind, self.who, begin=now()))

    # ---- calls

    def ask(self, how: int, key: int, hold: bool = False) -> None:
        rng, stamp = self.rng, self.stamp
        depth, under_way = self.depth, len(self.open)
        outer = depth == 0
        waited, begin = self.delay(), now()
        if outer:
            self.board.enter(self.slot, self.who, key, how, begin, waited)
        self.depth = depth + 1
        value, code, error = None, records.VALUE, ""
        stamp.seen, first = 0, int(stamp.words[0])
        arg = goods.cache_key(key)
        fn = None if how == VIEW and rng.random() < 0.2 else lambda: self.compute(key)
        limits: dict[str, Any] = {}
        if rng.random() < 0.15:
            limits = {"timeout": rng.choice((0, 0.001, 0.01)), "on_timeout": rng.choice(("raise", "compute"))}
        try:
            if outer:
                self.busy = True
            if how == CACHED:
                value = self.cache.cached(arg, fn, **limits)  # type: ignore[arg-type]
            elif how == VIEW:
                value = self.cache.view(arg, fn, **limits)
            else:
                value = self.cache.get(arg, self)
            if value is self or (value is None and fn is None):
                value, code = None, records.MISS
        except goods.Failed as exc:
            value, code = exc, records.FAILURE
        except WaitTimeout:
            code = records.MISS
        except Interrupt:
            if not outer:
                raise
            code = records.INTERRUPTED
        except Exception as exc:
            code = records.ERROR
            if not (how == GET and isinstance(exc, DecodeError)):  # an Undecodable, and get() cannot compute
                error = traceback.format_exc()
        finally:
            seen, look = stamp.seen, max(stamp.last, begin)
            self.depth = depth
            if outer:
                self.busy = False
        if outer and self.is_child and self.leaving:
            os._exit(0)
        end = now()
        if error:
            self.fault("error", f"{records.HOWS[how]} of key {key}: {error}")
        while len(self.open) > under_way:  # left by an exception
            of, ticket, started = self.open.pop()
            self.log.write(
                END, self.who, code=records.ABANDONED, key=of, begin=started, look=started, end=end, generation=ticket
            )
        generation = 0
        if code in (records.VALUE, records.FAILURE):
            generation = self.check(how, key, value, first, seen)
        delay = max(self.delay() - waited, 0) // 1000  # a forked child's clock begins anew
        if outer:
            self.board.leave(self.slot)
        self.log.write(
            records.CALL, self.who, how=how, code=code, key=key, delay=delay, begin=begin, look=look, end=end,
            generation=generation, extra=seen,
        )  # fmt: skip
        if hold and code == records.VALUE and generation and len(self.held) < _HELD_MAX:
            self.held.append(Held(value, key, generation, now() + int(rng.expovariate(1 / 40e6))))

    def check(self, how: int, key: int, value: Any, first: int, seen: int) -> int:
        """The generation of a value: that of the call's last look, if Python saw it (a hit's is in C), and not older
        than the one in which the call began."""
        try:
            generation = goods.check(key, value)
        except goods.Wrong as exc:
            self.fault("wrong value", f"{records.HOWS[how]}: {exc}; generation last seen {seen}")
            return 0
        if generation and (generation < first or (seen and generation != seen)):
            self.fault(
                "P2 look",
                f"{records.HOWS[how]} of key {key} returned a value of generation {generation}; the call began in"
                f" {first}, and its last look at the generation saw {seen} ({type(value).__name__})",
            )
        return generation

    # ---- computations

    def compute(self, key: int) -> Any:
        rng = self.rng
        begin = now()
        frame = coopshm_once.frames.get()[-1]
        ticket = int(frame.call.ticket.generation) if frame.call is not None else 0
        serial = int(frame.call.ticket.serial) if frame.call is not None else 0
        generation = int(self.stamp.words[0])
        self.open.append((key, ticket, begin))
        self.log.write(BEGIN, self.who, key=key, begin=begin, generation=ticket, extra=serial)
        if self.hooked_from and ticket > self.hooked_from and self.hooked < ticket and not self.is_child:
            self.fault("hook", f"computes in generation {ticket}, its hook ran last in {self.hooked}")
        r = rng.random()
        if r < 0.305:  # a slow source
            time.sleep((0.001 if r < 0.25 else 0.02 if r < 0.3 else 0.3) * rng.random())
        if goods.tier_of(key) < goods.TIERS - 1 and rng.random() < 0.2:
            above = goods.KEYS * (goods.tier_of(key) + 1) // goods.TIERS
            self.ask(CACHED, rng.randrange(above, goods.KEYS), hold=rng.random() < 0.3)
        if rng.random() < 0.01:
            self.fork(return_from_fn=rng.random() < 0.3)
        if not ticket:
            self.published((0, 0), now(), records.BYPASSED)
        r = rng.random()
        if r < 0.08:
            raise goods.failure(key, generation, rng.getrandbits(32))
        value = goods.make(key, generation, rng)
        if r < 0.09 and goods.kind_of(key) in (goods.ARRAY, goods.TUPLE, goods.DICT):
            body = goods._sealed(key, generation, 0, b"")
            return goods.Undecodable(body) if r < 0.083 else goods.Unshareable(body)
        return NoCache(value) if r < 0.2 or key in goods.NEVER_STORED else value

    def publishing(self) -> int:
        before = now()
        if self.open:
            key, ticket, begin = self.open[-1]
            self.log.write(PUBLISH, self.who, key=key, begin=begin, look=before, generation=ticket)
        return before

    def published(self, ticket: tuple[int, int], before: int, code: int) -> None:
        if not self.open:
            return  # of a forked child: its parent's computation
        key, _, begin = self.open.pop()
        self.log.write(
            END, self.who, code=code, key=key, begin=begin, look=before, end=now(), generation=ticket[0],
            extra=ticket[1],
        )  # fmt: skip

    def fork(self, return_from_fn: bool = False) -> None:
        raise NotImplementedError
