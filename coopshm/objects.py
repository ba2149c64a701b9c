"""The objects in /dev/shm: found by name, created, checked (whose is it, who else may touch it), unlinked.

The only importer of posix_ipc. Nothing here looks inside an object.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final, NamedTuple

import posix_ipc

from .config import CacheConfig, check_name
from .errors import ConfigError, NoSpaceError, OwnershipError, SegmentError

__all__ = ["SHM", "Place", "check_unlink", "existing", "open_object", "reopen", "unlink_if"]

SHM: Final = "/dev/shm"


class Place(NamedTuple):
    """Where a cache is found."""

    namespace: str
    cache: str

    def __str__(self) -> str:
        return f"cache {self.cache!r} in namespace {self.namespace!r}"


def existing(namespace: str | None = None) -> list[Place]:
    """Return the caches that have a segment, sorted; those of one namespace, or of all."""
    found = []
    for name in os.listdir(SHM) if os.path.isdir(SHM) else []:
        prefix, _, rest = name.partition(":")
        owner, _, cache = rest.partition(":")
        try:
            place = Place(check_name(owner), check_name(cache))
        except ConfigError:
            continue
        if prefix == "coopshm" and namespace in (None, owner):
            found.append(place)
    return sorted(found)


def open_object(name: str, label: str, config: CacheConfig, create: bool, check_owner: bool) -> int:
    while True:
        try:
            # Not with O_CREAT at first: for another user's object that is refused in a sticky directory, even to root.
            fd = posix_ipc.SharedMemory(name).fd
        except posix_ipc.ExistentialError:
            if not create:
                raise FileNotFoundError(f"{label}: there is no such segment") from None
        except (posix_ipc.PermissionsError, PermissionError):
            raise OwnershipError(
                f"{label}: it belongs to {_whose(name)} and may not be opened; set `user` or `group` for the cache, or "
                f"use another namespace"
            ) from None
        except (OSError, ValueError) as exc:  # posix_ipc says ValueError for a directory
            why = getattr(exc, "strerror", None) or exc
            raise SegmentError(f"{label}: {why}; is it a symbolic link, or no regular file? remove it") from exc
        else:
            try:
                if check_owner:
                    _check_owner(fd, label, config)
            except BaseException:
                os.close(fd)
                raise
            return int(fd)
        try:
            fd = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=config.mode).fd
        except posix_ipc.ExistentialError:
            if not os.path.isdir("/dev/shm"):
                raise NoSpaceError(f"{label}: /dev/shm is missing; mount a tmpfs there") from None
            continue  # somebody was faster
        except (posix_ipc.PermissionsError, PermissionError):
            raise OwnershipError(f"{label}: no permission to create it in /dev/shm") from None
        except OSError as exc:
            remedy = "; mount -o remount,rw /dev/shm" if exc.errno == errno.EROFS else ""
            raise NoSpaceError(f"{label}: cannot be created in /dev/shm: {exc.strerror or exc}{remedy}") from exc
        try:
            _hand_over(fd, label, config)
        except BaseException:
            os.close(fd)
            posix_ipc.unlink_shared_memory(name)
            raise
        return int(fd)


def _whose(name: str) -> str:
    """Name the user of an object that may not be opened."""
    import pwd

    try:
        uid = os.stat(SHM + name).st_uid
        return f"user {pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
    except OSError:
        return "another user"


def _hand_over(fd: int, label: str, config: CacheConfig) -> None:
    user, group = _user(config, label), _group(config, label)
    try:
        if user is not None or group is not None:
            os.fchown(fd, -1 if user is None else user, -1 if group is None else group)
        os.fchmod(fd, config.mode)  # the umask may have taken bits away
    except PermissionError as exc:
        raise OwnershipError(
            f"{label}: cannot be given to user {config.user!r}, group {config.group!r}; create it as root or that user"
        ) from exc


def _check_owner(fd: int, label: str, config: CacheConfig) -> None:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise OwnershipError(f"{label}: it is not a regular file; remove it")
    # Root's objects are as trustworthy as the machine.
    trusted = {os.geteuid(), 0, _user(config, label)}
    if found.st_uid not in trusted:
        raise OwnershipError(
            f"{label}: it belongs to uid {found.st_uid}, not to uid {os.geteuid()}; set `user` if that is meant, use "
            f"another namespace, or remove it"
        )
    excess = stat.S_IMODE(found.st_mode) & ~config.mode
    if excess:
        raise OwnershipError(
            f"{label}: its mode is {stat.S_IMODE(found.st_mode):04o}, which lets more in than the configured "
            f"{config.mode:04o}; remove it, or set `mode`"
        )


def _user(config: CacheConfig, label: str) -> int | None:
    if config.user is None or isinstance(config.user, int):
        return config.user
    import pwd

    try:
        return pwd.getpwnam(config.user).pw_uid
    except KeyError:
        raise ConfigError(f"{label}: user {config.user!r} does not exist on this host") from None


def _group(config: CacheConfig, label: str) -> int | None:
    if config.group is None or isinstance(config.group, int):
        return config.group
    import grp

    try:
        return grp.getgrnam(config.group).gr_gid
    except KeyError:
        raise ConfigError(f"{label}: group {config.group!r} does not exist on this host") from None


def reopen(name: str) -> int | None:
    """Return a descriptor of the object that has the name now, None when there is none or it may not be opened."""
    try:
        return int(posix_ipc.SharedMemory(name).fd)
    except (posix_ipc.Error, OSError, ValueError):
        return None


def check_unlink(fd: int, label: str) -> None:
    """Raise OwnershipError if this process may not unlink the object behind `fd`: /dev/shm is sticky."""
    owner = os.fstat(fd).st_uid
    if os.geteuid() not in (0, owner):
        raise OwnershipError(f"{label}: only its owner (uid {owner}) or root can remove it from /dev/shm")


def unlink_if(name: str, is_it: Callable[[int], bool]) -> None:
    """Unlink the object `name` if `is_it` says so of a descriptor of it.

    Raises:
        OwnershipError: it may not be unlinked by this process.
    """
    fd = reopen(name)
    if fd is None:
        return
    try:
        if is_it(fd):
            check_unlink(fd, f"/dev/shm{name}")
            posix_ipc.unlink_shared_memory(name)
    except posix_ipc.ExistentialError:
        pass  # somebody else was faster
    finally:
        os.close(fd)
