"""What an examination has found."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["ERROR", "LEVELS", "NOTE", "OK", "WARNING", "Finding"]

#: Something does not work; something will not work as configured, or wastes memory; something to know; all well.
ERROR: Final = "error"
WARNING: Final = "warning"
NOTE: Final = "note"
OK: Final = "ok"

#: By how urgent they are.
LEVELS: Final = (ERROR, WARNING, NOTE, OK)


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        check: what was examined; one of the names in docs/operating.md, which do not change.
        level: one of LEVELS. Errors and warnings are faults.
        text: what was found.
        remedy: what to do about it; empty where there is nothing to do.
        subject: the cache, path or process that it is about; empty for the host.
    """

    check: str
    level: str
    text: str
    remedy: str = ""
    subject: str = ""

    @property
    def fault(self) -> bool:
        return self.level in (ERROR, WARNING)
