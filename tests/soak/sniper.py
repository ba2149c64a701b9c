"""Deaths and stops close to where they may do harm: a timer of the kernel whose signal is SIGKILL or SIGSTOP.

A critical section takes some hundred nanoseconds, so a kill from outside hits one by luck only. In a process that was
just forked the same section takes some microseconds, since each page that it touches is copied first. So a sniper sets
the timer right before one of its first calls of the core, or before it attaches.
"""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Callable

from .records import libc

_CALL_NS, _ATTACH_NS = 25_000, 2_000_000  # about what a first call takes, and an attach
_BYTES_A_NS = 3


class _Event(ctypes.Structure):
    _fields_ = [("value", ctypes.c_void_p), ("signal", ctypes.c_int), ("notify", ctypes.c_int)]
    _fields_ += [("rest", ctypes.c_char * 48)]  # type: ignore[list-item]


class _Times(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns")]


class Sniper:
    """Sends this process `number`, once, in the `shot`th call of the core from now on; 0: at once, before the attach.

    Args:
        fire: called right before the timer is set.
    """

    def __init__(self, number: int, shot: int, rng: random.Random, fire: Callable[[], None]) -> None:
        event = _Event(signal=number)
        self._id = ctypes.c_void_p()
        if libc.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._id)) != 0:
            raise OSError(ctypes.get_errno(), "timer_create")
        self._times = _Times()
        self._left, self._rng, self._fire = shot, rng, fire
        if shot == 0:
            self._shoot(_ATTACH_NS)

    def aim(self, copied: int) -> None:
        """Called right before each call of the core, which copies about so many bytes."""
        self._left -= 1
        if self._left == 0:
            self._shoot(_CALL_NS + copied // _BYTES_A_NS)

    def _shoot(self, within_ns: int) -> None:
        self._fire()
        self._times.first_ns = self._rng.randrange(1, within_ns)
        libc.timer_settime(self._id, 0, ctypes.byref(self._times), None)
