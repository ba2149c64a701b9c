"""What lies in /dev/shm: other layouts, damage, owners, leftovers, and what the caches themselves tell.

Other users' objects can be looked at by root only; to others their existence and size are all that can be said.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..._describe import rows
from ..._open import bytes_needed, in_use
from ...config import CacheConfig, Config
from ...errors import CoopshmError, LayoutError, OwnershipError
from ...objects import SHM, Place
from ...observe import MissingError, UnfinishedError, attach, path
from ...stats import Stats, collect
from ..text import count, size
from .finding import ERROR, NOTE, OK, WARNING, Finding
from .host import Host, user_name
from .memory import Need

__all__ = ["Known", "check_object", "check_removed", "look", "needs"]

#: What a cause of bypasses means, and what helps; those that are named here are worth a finding.
_CAUSES: Mapping[str, tuple[str, str]] = {
    "full": ("memory_limit was reached", "raise memory_limit"),
    "items": ("max_items was reached", "raise max_items"),
    "too_large": ("values were larger than memory_limit", "raise memory_limit, or do not cache them"),
    "no_space": ("/dev/shm was full", "enlarge /dev/shm, or lower memory_limit"),
    "lock": ("the write lock was held by a stopped process", "find out who stops processes (SIGSTOP, a debugger)"),
    "rows": ("a process found no row or no descriptor", "fewer processes, a higher limit of open files, or set `user`"),
    "flights": ("too many computations were under way", "fewer threads, or a cheaper function"),
    "waiters": ("too many threads waited", "fewer threads"),
    "encode": ("values could not be encoded", "look at the exceptions in the log; choose another serializer"),
    "decode": ("entries could not be decoded", "let all processes have the same code and serializer"),
    "segment": ("a system call failed", "look at the log"),
}

_OTHER_OWNER = "set `user`, give each user a namespace of its own, or destroy the cache as root"


class Known(NamedTuple):
    """What could be learned of a cache."""

    status: os.stat_result
    used: bool  # by any process, of whatever release
    stats: Stats | None
    bytes_full: int  # what its segment takes when it is full
    pids: tuple[int, ...]  # of its processes
    holder: int  # the process that held the write lock at that moment; 0: none
    problem: CoopshmError | None


def look(place: Place) -> Known | None:
    """Look at a cache without leaving a trace. None: it is gone."""
    try:
        status = os.stat(path(place), follow_symlinks=False)
    except FileNotFoundError:
        return None
    taken = status.st_blocks * 512
    unknown = Known(status, _is_used(place), None, taken, (), 0, None)
    try:
        segment = attach(place)
    except MissingError:
        return None
    except CoopshmError as exc:
        return unknown._replace(problem=exc)
    try:
        info = segment.describe()
        # A segment that others made holds what they want it to hold: it is believed for the sizes it may have.
        full = max(int(info.segment_bytes), taken)
        stats = collect(place.cache, segment)
        pids = tuple(sorted({row.pid for row in rows(segment) if row.alive and row.role == "app"}))
        return Known(segment.status(), unknown.used, stats, full, pids, int(info.lock_pid), None)
    except CoopshmError as exc:
        return unknown._replace(problem=exc)
    finally:
        segment.leave()


def _is_used(place: Place) -> bool:
    try:
        fd = os.open(path(place), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return True  # not for us to know
    try:
        return in_use(fd)
    finally:
        os.close(fd)


def needs(config: Config, known: Mapping[Place, Known]) -> dict[Place, Need]:
    """Return what each cache takes, and may take: those that exist, and those that are configured."""
    found = {place: Need(one.status.st_blocks * 512, one.bytes_full) for place, one in known.items()}
    for name, settings in config.caches.items():
        place = Place(config.namespace, name)
        now = found[place].now if place in found else 0
        found[place] = Need(now, max(bytes_needed(settings), now))
    return found


def check_object(place: Place, known: Known, config: Config, host: Host) -> Iterator[Finding]:
    """Is the object of a cache one that its processes will accept, is it used, and how does the cache do?"""
    name = str(place)
    here = place.namespace == config.namespace
    settings = config.caches.get(place.cache) if here else None
    if not stat.S_ISREG(known.status.st_mode):
        text = f"{path(place)} is no regular file, so the cache cannot be opened"
        yield Finding("owner", ERROR, text, f"find out who made it; rm {path(place)}", name)
        return
    yield from _check_owner(place, known, settings)
    if known.problem is not None:
        yield from _check_unreadable(place, known, settings, name)
    elif not known.used:
        yield from _check_unused(place, known, config, settings, here)
    if known.stats is not None:
        yield from _check_stats(known.stats, known, settings, name)
    if known.holder and host.is_stopped(known.holder):
        text = f"process {known.holder} holds the write lock and is stopped: misses go on without the cache"
        yield Finding("stopped", WARNING, text, f"kill -CONT {known.holder}, or kill it", name)
    for pid in known.pids:
        if pid != known.holder and host.is_stopped(pid):
            text = f"process {pid} is stopped: who waits for what it computes waits for it"
            yield Finding("stopped", NOTE, text, f"kill -CONT {pid}, or kill it", name)


def _check_owner(place: Place, known: Known, settings: CacheConfig | None) -> Iterator[Finding]:
    name, mode = str(place), stat.S_IMODE(known.status.st_mode)
    if mode & 0o007:
        text = f"its mode is {mode:04o}: any user of the host can {'change' if mode & 0o002 else 'read'} its values"
        yield Finding("mode", ERROR, text, f"chmod o-rwx {path(place)}, and find out who let them in", name)
    elif mode & 0o070 and not (settings and settings.mode & 0o070):
        text = f"its mode is {mode:04o}, which lets its group in, and no `mode` of the configuration says so"
        remedy = f"set `group` and `mode` for the cache, or chmod g-rwx {path(place)}"
        yield Finding("mode", WARNING, text, remedy, name)
    if settings is None or isinstance(known.problem, OwnershipError):
        return
    owner, wanted = known.status.st_uid, settings.user
    if isinstance(wanted, str):
        fits = wanted == user_name(owner)
    elif wanted is not None:
        fits = wanted == owner
    else:
        fits = os.geteuid() in (0, owner) or owner == 0
    if not fits:
        whose = "you" if wanted is None else f"user {wanted}, as configured"
        text = f"it belongs to {user_name(owner)} (uid {owner}), not to {whose}: your processes refuse it"
        yield Finding("owner", ERROR, text, _OTHER_OWNER, name)


def _check_unreadable(place: Place, known: Known, settings: CacheConfig | None, name: str) -> Iterator[Finding]:
    destroy = f"coopshm-admin --namespace {place.namespace} destroy {place.cache}"
    if isinstance(known.problem, OwnershipError) and settings is not None:
        text = f"it belongs to uid {known.status.st_uid}, and your processes cannot open it"
        yield Finding("owner", ERROR, text, _OTHER_OWNER, name)
    elif isinstance(known.problem, OwnershipError):
        text = f"it belongs to uid {known.status.st_uid}; only that user and root can look into it"
        yield Finding("owner", NOTE, text, "", name)
    elif isinstance(known.problem, LayoutError):
        if known.used:
            text = "another release of coopshm (or another C library) uses it; processes of this one cannot"
            yield Finding("layout", ERROR, text, "give each release a namespace of its own, or stop the other", name)
        else:
            text = f"it was made by another release of coopshm, is used by nobody, and takes {size(_taken(known))}"
            yield Finding("layout", WARNING, text, f"{destroy}; or open it, which replaces it", name)
    elif isinstance(known.problem, UnfinishedError):
        text = "it is being created, or its creator died; whoever opens it next makes it anew"
        yield Finding("unfinished", NOTE, text, "" if known.used else destroy, name)
    else:
        yield Finding("damaged", ERROR, str(known.problem), destroy, name)


def _check_unused(
    place: Place, known: Known, config: Config, settings: CacheConfig | None, here: bool
) -> Iterator[Finding]:
    name, taken = str(place), size(_taken(known))
    if settings is not None and settings.lifetime == "host":
        text = f'no process uses it now; lifetime = "host" keeps its {taken}'
        yield Finding("leftover", OK, text, "", name)
    elif settings is not None or (here and config.implicit):
        text = f"no process uses it now; it holds {taken}, and starts cold with the next process"
        yield Finding("leftover", NOTE, text, "", name)
    else:
        why = "the configuration does not know it" if here else "a deployment that is gone, by its namespace"
        text = f"no process uses it ({why}), and it holds {taken} of /dev/shm"
        remedy = f"coopshm-admin --namespace {place.namespace} destroy {place.cache}"
        yield Finding("leftover", WARNING, text, remedy, name)


def _check_stats(stats: Stats, known: Known, settings: CacheConfig | None, name: str) -> Iterator[Finding]:
    if settings and (settings.memory_limit, settings.max_items) != (stats.memory_limit, stats.max_items):
        text = (
            f"it has memory_limit {size(stats.memory_limit)} and max_items {stats.max_items}, configured are "
            f"{size(settings.memory_limit)} and {settings.max_items}"
        )
        remedy = "stop all its processes and start them again: an object in use keeps the size it has"
        yield Finding("settings", WARNING, text, remedy, name)
    if stats.full:
        used = f"{size(stats.bytes_used)} of {size(stats.memory_limit)}, {stats.entries} of {stats.max_items} entries"
        text = f"it is full ({used}): new values are computed by whoever asks and not stored"
        yield Finding("full", WARNING, text, "raise memory_limit (or max_items), or reset it", name)
    for cause, amount in stats.bypasses.items():
        if amount and cause in _CAUSES and not (stats.full and cause in ("full", "items")):
            what, remedy = _CAUSES[cause]
            calls = count(amount, "call was", "calls were")
            text = f"{calls} answered without the cache, since {what} (counted since it was created)"
            yield Finding("bypasses", NOTE, text, remedy, name)
    if known.used and not stats.full:
        yield Finding(
            "cache", OK, f"{_processes(stats.processes)}, {count(stats.entries, 'entry', 'entries')}", "", name
        )


def _taken(known: Known) -> int:
    return known.status.st_blocks * 512


def _processes(number: int) -> str:
    return count(number, "process", "processes")


def check_removed(host: Host) -> Iterator[Finding]:
    """Are processes at work in objects that have lost their names, beside others that are in new ones?"""
    found: dict[tuple[str, bool], list[int]] = {}
    for one in host.removed_objects():
        found.setdefault((one.name, one.destroyed), []).append(one.pid)
    for (name, destroyed), pids in sorted(found.items()):
        listed = ", ".join(map(str, pids[:5])) + (", ..." if len(pids) > 5 else "")
        if destroyed:
            text = (
                f"{_processes(len(pids))} ({listed}) still {'has' if len(pids) == 1 else 'have'} the destroyed object "
                f"open; it goes with the next call there"
            )
            yield Finding("removed", NOTE, text, "", f"{SHM}/{name}")
        else:
            text = (
                f"{_processes(len(pids))} ({listed}) at work in an object that was removed from {SHM}; a reset "
                f"elsewhere does not count there until that is noticed"
            )
            remedy = "destroy caches by coopshm-admin rather than rm; look for RemoveIPC; restart them if they stay"
            yield Finding("removed", WARNING, text, remedy, f"{SHM}/{name}")
