"""How long a call waits for another's computation, and what it does then: the settings and arguments `timeout` and
`on_timeout`, and what is left of them in the middle of a call.

Only waiting counts. What `fn` takes in the call itself is its own affair, and what a look-up or a publication takes is
bounded anyway. The time is one for the whole call: who begins again after a reset has what it has left.
"""

from __future__ import annotations

import math
import time
from typing import Final, Literal

from .errors import not_allowed

__all__ = ["ON_TIMEOUT", "Limit", "OnTimeout", "check_on_timeout", "check_timeout"]

OnTimeout = Literal["raise", "compute"]

ON_TIMEOUT: Final = ("raise", "compute")


def check_timeout(value: object, where: str = "timeout") -> float:
    """Return seconds; infinity is no limit.

    Raises:
        ConfigError: it is no number from 0.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf if value > 0 else -math.inf
        if seconds >= 0:  # NaN is not
            return seconds
    raise not_allowed(where, value, "write a number of seconds, from 0; inf is without limit")


def check_on_timeout(value: object, where: str = "on_timeout") -> OnTimeout:
    """Return `value` if it is one of `ON_TIMEOUT`.

    Raises:
        ConfigError: it is not.
    """
    if isinstance(value, str) and value in ON_TIMEOUT:
        return "compute" if value == "compute" else "raise"
    raise not_allowed(where, value, '"raise" or "compute"')


class Limit:
    """What one call has left to wait, in seconds, and what it does when nothing is left."""

    __slots__ = ("_since", "computes", "left", "seconds")

    def __init__(self, seconds: float, computes: bool) -> None:
        self.seconds = self.left = seconds
        self.computes = computes
        self._since = 0.0

    def __enter__(self) -> float:
        """Begin to wait. Returns the seconds left."""
        self._since = time.monotonic()
        return self.left

    def __exit__(self, *_: object) -> None:
        self.left = max(0.0, self.left - (time.monotonic() - self._since))
