"""/dev/shm, its size and that of the memory cgroup, beside what the caches may take."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ...objects import SHM, Place
from ..text import size
from .finding import ERROR, NOTE, OK, WARNING, Finding
from .host import Host

__all__ = ["Need", "check_cgroup", "check_mount", "check_size"]

#: What container runtimes give a container that asks for nothing.
_CONTAINER_DEFAULT = 64 << 20


class Need(NamedTuple):
    """What a cache takes of /dev/shm: now, and when it is full."""

    now: int
    full: int


def check_mount(host: Host, shm: str = SHM) -> Iterator[Finding]:
    """Is there a /dev/shm, of the right kind, that one may create objects in?"""
    remount = f"mount -t tmpfs -o mode=1777,size=... tmpfs {shm}"
    try:
        found = os.stat(shm)
    except OSError as exc:
        yield Finding("shm-mount", ERROR, f"{shm}: {exc.strerror}", remount, shm)
        return
    if not stat.S_ISDIR(found.st_mode):
        yield Finding("shm-mount", ERROR, f"{shm} is no directory", f"remove it, then {remount}", shm)
        return
    mount = host.mount_of(shm)
    if mount is None:
        yield Finding(
            "shm-mount", NOTE, "what is mounted cannot be known: /proc/self/mountinfo cannot be read", "", shm
        )
    elif mount.type not in ("tmpfs", "devtmpfs", "ramfs"):
        yield Finding("shm-mount", ERROR, f"{shm} is no tmpfs but lies on {mount.type}", remount, shm)
    elif "ro" in mount.options:
        yield Finding("shm-mount", ERROR, f"{shm} is read-only", f"mount -o remount,rw {shm}", shm)
        return  # so nobody may create anything, whatever the mode
    elif mount.type == "ramfs":
        text = f"{shm} is a ramfs, which takes all memory of the host before it is full"
        yield Finding("shm-mount", WARNING, text, remount, shm)
    else:
        yield Finding("shm-mount", OK, f"{shm} is a {mount.type}", "", shm)
    mode = stat.S_IMODE(found.st_mode)
    if not os.access(shm, os.W_OK | os.X_OK):
        text = f"uid {os.geteuid()} may not create anything in {shm} (mode {mode:04o})"
        yield Finding("shm-access", ERROR, text, f"chmod 1777 {shm}", shm)
    elif mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        text = f"{shm} has mode {mode:04o}, without the sticky bit: any user can remove the caches of any other"
        yield Finding("shm-access", ERROR, text, f"chmod 1777 {shm}", shm)
    else:
        yield Finding(
            "shm-access", OK, f"uid {os.geteuid()} can create objects, and only owners can remove them", "", shm
        )


def check_size(host: Host, needs: Mapping[Place, Need], shm: str = SHM) -> Iterator[Finding]:
    """Do all caches fit into /dev/shm and into memory when they are full?"""
    try:
        found = os.statvfs(shm)
    except OSError:
        return  # check_mount says it
    total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    full = sum(need.full for need in needs.values())
    now = sum(need.now for need in needs.values())
    caches = f"{len(needs)} cache{'' if len(needs) == 1 else 's'}"
    remedy = f"mount -o remount,size={_round(full)}m {shm}, or lower memory_limit"
    if total == _CONTAINER_DEFAULT:
        remedy = (
            f"this is what containers get by default: start it with --shm-size={_round(full)}m (Compose: shm_size; "
            f"Kubernetes: an emptyDir with medium: Memory at {shm}), or lower memory_limit"
        )
    if total and full > total:
        text = (
            f"{caches} may take {size(full)} when full, but {shm} has {size(total)}; what finds no room is not stored"
        )
        yield Finding("shm-size", WARNING, text, remedy, shm)
    elif total and full - now > free:
        text = f"{caches} may take {size(full - now)} more, but of {size(total)} only {size(free)} are left by others"
        yield Finding("shm-size", WARNING, text, f"{remedy}; `du {shm}/*` shows who takes it", shm)
    else:
        limit = f"of {size(total)}" if total else "of what is not limited"
        yield Finding("shm-size", OK, f"{caches} may take {size(full)} {limit} ({size(free)} free)", "", shm)
    if found.f_files and not found.f_favail:
        text = f"{shm} has no inode left for another object ({found.f_files} in all)"
        yield Finding("shm-inodes", ERROR, text, f"mount -o remount,nr_inodes=... {shm}, or remove files", shm)
    memory = host.memory()
    if memory and full > memory:
        text = f"{caches} may take {size(full)} when full, but the host has {size(memory)} of memory and swap"
        yield Finding("memory", WARNING, text, "lower memory_limit: what is in /dev/shm is memory")


def check_cgroup(host: Host, needs: Mapping[Place, Need], pids: Mapping[int, str]) -> Iterator[Finding]:
    """Do the caches fit into the memory that the cgroup of their processes may have?

    Args:
        pids: the processes that use caches, and a cache of each.
    """
    full = sum(need.full for need in needs.values())
    seen = set()
    processes: list[tuple[int | str, str]] = [("self", ""), *pids.items()]
    for pid, subject in processes:
        found = host.cgroup(pid)
        if found is None or found in seen:
            continue
        seen.add(found)
        whose = "this command" if pid == "self" else f"process {pid} ({subject})"
        if full >= found.limit:
            text = (
                f"the caches may take {size(full)} when full, and the memory cgroup {found.name} of {whose} has a "
                f"limit of {size(found.limit)}: pages of /dev/shm count towards it, so its processes may be killed "
                f"before the caches are full"
            )
            remedy = "raise the limit (MemoryMax=, --memory, resources.limits.memory), or lower memory_limit"
            yield Finding("cgroup-memory", WARNING, text, remedy, subject)
        else:
            text = f"the memory cgroup {found.name} of {whose} has a limit of {size(found.limit)}"
            yield Finding("cgroup-memory", OK, text, "", subject)
    if not seen:
        yield Finding("cgroup-memory", OK, "no memory cgroup with a limit")


def _round(nbytes: int) -> int:
    """Return MiB, with a tenth to spare."""
    return (nbytes * 11 // 10 >> 20) + 1
