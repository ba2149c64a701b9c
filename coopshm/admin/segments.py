"""Which caches there are on this host, and attaching to one as an observer.

What the configuration says of a cache does not matter here: an existing segment has its own settings. The
object may be anything that somebody put under the name, so what is read from it can turn out to be nonsense.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from .._segment import OBSERVER, Segment, open_segment
from ..attachment import Attachment
from ..config import CacheConfig, segment_name
from ..errors import CorruptError, OwnershipError, SegmentError
from ..objects import SHM, Place, existing, unlink_if

__all__ = [
    "MissingError",
    "Place",
    "UnfinishedError",
    "attach",
    "check_removable",
    "existing",
    "remove",
    "reset",
]


class MissingError(SegmentError):
    """There is no segment of this cache."""


class UnfinishedError(SegmentError):
    """A segment is being created, or its creator died before it had finished."""


def attach(place: Place) -> Segment:
    """Attach to the segment of a cache as an observer.

    Raises:
        MissingError: there is none; the message lists those that exist.
        UnfinishedError: there is none yet.
        SegmentError: it cannot be used; see the other subclasses.
    """
    _check_finished(place)
    try:
        return open_segment(place.namespace, CacheConfig(place.cache), b"", OBSERVER, create=False)
    except FileNotFoundError:
        raise _missing(place) from None


def reset(place: Place, version: object, on_reset: Callable[[object], object] | None) -> tuple[object, object]:
    """Reset a cache as an observer. Returns the version it had, and the one it has now.

    Args:
        version: as for `Cache.reset`.
        on_reset: the callback; called only if the version is to change. Whatever it raises, this raises.

    Raises:
        MissingError, UnfinishedError: there is no segment, or none any more.
        SegmentError, ConfigError, ResetError: as for `Cache.reset`.
    """
    _check_finished(place)
    try:
        attachment = Attachment(place.namespace, CacheConfig(place.cache, on_reset=on_reset), OBSERVER)
        try:
            old = attachment.version()
        except CorruptError:
            old = None  # a reset mends it
        return old, attachment.reset(version)
    except FileNotFoundError:
        raise _missing(place) from None


def _check_finished(place: Place) -> None:
    if _is_blank(place):  # opening it would mean to finish it
        raise UnfinishedError(
            f"{place} is being created, or its creator died; the next process that opens it creates it anew"
        )


def _missing(place: Place) -> MissingError:
    """Return the error for a cache that has no segment, to be raised."""
    here = [other.cache for other in existing(place.namespace)]
    if here:
        hint = f"there are {', '.join(here)}"
    elif namespaces := sorted({other.namespace for other in existing()}):
        hint = f"it has no caches at all; namespaces with caches are {', '.join(namespaces)}"
    else:
        hint = "there are no caches on this host at all"
    return MissingError(f"namespace {place.namespace!r} has no cache {place.cache!r}: {hint}")


def check_removable(place: Place) -> os.stat_result | None:
    """Find out beforehand whether this process may remove the object, so that it does not end half destroyed.

    Returns what is under the name: None, if nothing is.

    Raises:
        OwnershipError: it may not.
    """
    directory = os.stat(SHM)
    try:
        found = os.stat(_path(place), follow_symlinks=False)
    except FileNotFoundError:
        return None
    if directory.st_mode & stat.S_ISVTX and os.geteuid() not in (0, found.st_uid, directory.st_uid):
        raise OwnershipError(f"{place}: only its owner (uid {found.st_uid}) and root can remove {_path(place)}")
    return found


def remove(place: Place, seen: os.stat_result | None) -> None:
    """Remove an object that cannot be attached to, if it is the one seen by `check_removable`.

    Processes that use it notice that it has lost its name.
    """
    unlink_if(segment_name(*place), lambda fd: seen is not None and os.path.samestat(os.fstat(fd), seen))


def _path(place: Place) -> str:
    return SHM + segment_name(*place)


def _is_blank(place: Place) -> bool:
    """The third word of a segment is its state, which its creator stores last; until then it is zero."""
    try:
        fd = os.open(_path(place), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False  # what is wrong with it, opening it properly will tell
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        head = os.pread(fd, 24, 0)
        return len(head) in (0, 24) and not any(head[16:])
    finally:
        os.close(fd)
