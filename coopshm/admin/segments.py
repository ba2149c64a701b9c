"""What changes a cache from outside: a reset, and removing it. Looking on is observe.py, and passed on here."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from .._codes import OBSERVER
from ..attachment import Attachment
from ..config import CacheConfig, segment_name
from ..errors import CorruptError, OwnershipError
from ..objects import SHM, Place, existing, unlink_if
from ..observe import MissingError, UnfinishedError, attach, check_finished, missing, path

__all__ = [
    "MissingError",
    "Place",
    "UnfinishedError",
    "attach",
    "check_removable",
    "existing",
    "owner",
    "path",
    "remove",
    "reset",
]


def reset(place: Place, version: object, on_reset: Callable[[object], object] | None) -> tuple[object, object]:
    """Reset a cache as an observer. Returns the version it had, and the one it has now.

    Args:
        version: as for `Cache.reset`.
        on_reset: the callback; called only if the version is to change. Whatever it raises, this raises.

    Raises:
        MissingError, UnfinishedError: there is no segment, or none any more.
        SegmentError, ConfigError, ResetError: as for `Cache.reset`.
    """
    check_finished(place)
    try:
        attachment = Attachment(place.namespace, CacheConfig(place.cache, on_reset=on_reset), OBSERVER)
        try:
            old = attachment.version()
        except CorruptError:
            old = None  # a reset mends it
        return old, attachment.reset(version)
    except FileNotFoundError:
        raise missing(place) from None


def check_removable(place: Place) -> os.stat_result | None:
    """Find out beforehand whether this process may remove the object, so that it does not end half destroyed.

    Returns what is under the name: None, if nothing is.

    Raises:
        OwnershipError: it may not.
    """
    directory, found = os.stat(SHM), owner(place)
    if found is None:
        return None
    if directory.st_mode & stat.S_ISVTX and os.geteuid() not in (0, found.st_uid, directory.st_uid):
        raise OwnershipError(f"{place}: only its owner (uid {found.st_uid}) and root can remove {path(place)}")
    return found


def remove(place: Place, seen: os.stat_result | None) -> None:
    """Remove an object that cannot be attached to, if it is the one seen by `check_removable`.

    Processes that use it notice that it has lost its name.
    """
    unlink_if(segment_name(*place), lambda fd: seen is not None and os.path.samestat(os.fstat(fd), seen))


def owner(place: Place) -> os.stat_result | None:
    """Return what the system knows of the object under the name; None, if there is none."""
    try:
        return os.stat(path(place), follow_symlinks=False)
    except FileNotFoundError:
        return None
