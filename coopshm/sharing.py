"""A loop of once.py that tasks, or greenlets, of one process share: one of them takes its steps, the others wait.

Who takes the steps may leave before the end: it is cancelled, or its time is up. Then the one that has waited longest
begins the loop anew. Only that one is woken: with a thousand that wait, each with a time limit of its own, waking all
of them at each leaving would keep the process busy with nothing else.

Nothing here waits: how that is done is the business of aio.py and greenlets.py. All calls for one flight come from one
event loop or hub, so nothing is locked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Final

from .hot import MISSING
from .once import TIMED_OUT, Origin

__all__ = ["ENDED", "LEADS", "Flight"]

#: What those who wait are told: to take the steps themselves, or to look at the flight's value.
LEADS: Final = object()
ENDED: Final = object()


class Flight:
    """One loop and those who share it. Whoever takes its steps does so within `with`, and sets `value` at the end."""

    __slots__ = ("_doubted", "_forget", "_tells", "origin", "value")

    def __init__(self, forget: Callable[[], object]) -> None:
        """`forget` is called when nobody can join any more."""
        self._forget = forget
        self._doubted = False
        self._tells: OrderedDict[object, Callable[[object], bool]] = OrderedDict()
        self.origin: Origin | None = None
        self.value: object = MISSING

    def __enter__(self) -> None:
        self.value = MISSING
        self._doubted = False

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.value is MISSING or self.value is TIMED_OUT:
            self.pass_on()
            return
        self._forget()
        for tell in list(self._tells.values()):
            tell(ENDED)

    def join(self, tell: Callable[[object], bool]) -> object:
        """Wait in the queue. `tell` is called with LEADS or ENDED; False: whoever it was has left, or is about to.

        Returns:
            The place, for `leave`. Who leaves after it was told LEADS calls `pass_on`.
        """
        place = object()
        self._tells[place] = tell
        return place

    def leave(self, place: object) -> None:
        self._tells.pop(place, None)

    def doubt(self) -> bool:
        """Ask when the time of somebody in the queue is up: is it to take the steps by itself, without waiting? The
        first one is. It finds out whether there is a computation at all: who takes the steps for all may be waiting for
        the cluster's answer, and have the time to."""
        first, self._doubted = not self._doubted, True
        return first

    def pass_on(self) -> None:
        """Have the next one take the steps."""
        while self._tells:
            _, tell = self._tells.popitem(last=False)
            if tell(LEADS):
                return
        self._forget()
