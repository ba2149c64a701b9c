"""Kernel, libc, Python, limits, logind, namespaces."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping

from .finding import ERROR, NOTE, OK, WARNING, Finding
from .host import Host, user_name

__all__ = ["check_files", "check_kernel", "check_logind", "check_namespaces", "check_runtime"]

#: Descriptors that a server needs besides those of its caches, roughly.
_OTHER_FILES = 64

#: The kernel's struct flock: type, whence, start, length, pid.
_FLOCK = struct.Struct("@hhqqi4x")


def check_kernel(has_locks: Callable[[], bool] | None = None) -> Iterator[Finding]:
    """Does the kernel have what liveness rests on? Tried out, since a sandbox may claim any version."""
    release = os.uname().release
    found = (has_locks or _has_ofd_locks)()
    if not found:
        text = f"the kernel ({release}) has no open file description locks, by which it is known which process lives"
        yield Finding(
            "kernel", ERROR, text, "use Linux 3.15 or later; sandboxes such as gVisor need a runtime that has them"
        )
    else:
        yield Finding("kernel", OK, f"Linux {release} has open file description locks")


def _has_ofd_locks() -> bool:
    """A lock that one description holds is seen by another, and is gone with the first."""
    try:
        first = os.memfd_create("coopshm-doctor", os.MFD_CLOEXEC)
        try:
            second = os.open(f"/proc/self/fd/{first}", os.O_RDWR | os.O_CLOEXEC)
            try:
                lock = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 1 << 62, 1, 0)
                fcntl.fcntl(first, fcntl.F_OFD_SETLK, lock)
                return bool(_FLOCK.unpack(fcntl.fcntl(second, fcntl.F_OFD_GETLK, lock))[0] == fcntl.F_WRLCK)
            finally:
                os.close(second)
        finally:
            os.close(first)
    except OSError:
        return False


def check_runtime(libc: str | None = None) -> Iterator[Finding]:
    """Are libc and Python those that the core is made for?"""
    name = libc or _libc()
    version = re.fullmatch(r"glibc (\d+)\.(\d+)", name)
    if version and (int(version[1]), int(version[2])) < (2, 30):
        yield Finding("libc", ERROR, f"{name} has no sem_clockwait", "use glibc 2.30 or later")
    else:
        yield Finding("libc", OK, f"{name}; all processes of a cache must have the same C library")
    python = f"Python {sys.version.split()[0]}"
    with_gil: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    if not with_gil():
        yield Finding(
            "python", ERROR, f"{python} runs without its lock (free-threaded)", "use the usual build of Python"
        )
    else:
        yield Finding("python", OK, python)


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "an unknown C library"
    except (ValueError, OSError):
        return "no glibc"


def check_files(host: Host, caches: int, pids: Mapping[int, str]) -> Iterator[Finding]:
    """Is there a descriptor for each cache in each process?"""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < caches + _OTHER_FILES:
        text = (
            f"a process may have {soft} open files here, and needs one for each cache, {caches} in all, besides its own"
        )
        yield Finding("open-files", WARNING, text, f"ulimit -n (the hard limit is {hard}), or LimitNOFILE= of the unit")
    else:
        limit = "any number of" if soft == resource.RLIM_INFINITY else str(soft)
        yield Finding("open-files", OK, f"a process may have {limit} open files here; each cache takes one")
    for pid, subject in pids.items():
        found = host.open_files(pid)
        if found and found[0] + 8 > found[1]:
            text = f"process {pid} has {found[0]} of {found[1]} files open; without a descriptor it goes on uncached"
            remedy = "raise its limit (LimitNOFILE= of the unit), or find out what it leaves open"
            yield Finding("open-files", WARNING, text, remedy, subject)


def check_logind(host: Host, uids: Iterable[int]) -> Iterator[Finding]:
    """Will systemd remove the caches of a user who logs out?"""
    if not host.has_logind():
        yield Finding("remove-ipc", OK, "systemd does not run here, so nobody removes the objects of users who log out")
        return
    removes, source = host.removes_ipc()
    if not removes:
        yield Finding("remove-ipc", OK, f"RemoveIPC=no ({source})")
        return
    exposed = False
    for uid in sorted(set(uids)):
        user = user_name(uid)
        if host.is_system_user(uid):
            continue
        if host.lingers(user):
            yield Finding("remove-ipc", OK, f"user {user} lingers, so its objects stay when it logs out")
            continue
        exposed = True
        text = (
            f"systemd-logind removes the caches of user {user} (uid {uid}) whenever its last session ends: "
            f"RemoveIPC=yes ({source}), and the user is no system user and does not linger"
        )
        remedy = (
            f"RemoveIPC=no under [Login] in /etc/systemd/logind.conf.d/coopshm.conf, then systemctl restart "
            f"systemd-logind; or loginctl enable-linger {user}; or run the server as a system user"
        )
        yield Finding("remove-ipc", WARNING, text, remedy, f"uid {uid}")
    if not exposed:
        yield Finding("remove-ipc", OK, f"RemoveIPC=yes ({source}), but no user of a cache is exposed to it")


def check_namespaces(host: Host, pids: Mapping[int, str]) -> Iterator[Finding]:
    """Do the numbers of processes mean here what they mean to those who wrote them?"""
    if not host.exists("proc/self/fd"):
        text = "/proc is not mounted: no process can attach again after a fork"
        yield Finding("proc", ERROR, text, "mount -t proc proc /proc")
        return
    yield Finding("proc", OK, "/proc is mounted")
    strange = sorted(pid for pid in pids if not host.has_process(pid))
    if strange:
        listed = ", ".join(map(str, strange[:5])) + (", ..." if len(strange) > 5 else "")
        text = f"process {listed} of {pids[strange[0]]} lives, but not under that number here: another PID namespace"
        yield Finding("pid-namespace", NOTE, text, "", pids[strange[0]])
    elif host.in_first_pid_namespace():
        yield Finding("pid-namespace", OK, "the numbers of processes are those of the whole host")
    else:
        text = "this runs in a PID namespace of its own (a container); so does, or should, what uses the same /dev/shm"
        yield Finding("pid-namespace", NOTE, text)
