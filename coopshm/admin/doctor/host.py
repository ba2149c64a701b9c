"""The facts about a host: what its files in /proc, /sys, /etc and /run say.

Everything may be missing or unreadable, in containers above all: then the answer is None, or empty.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Host", "Memory", "Mount", "Open"]

#: Where systemd looks for settings, in the order of precedence.
_SYSTEMD = ("etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd", "lib/systemd")

#: A limit above this is none.
_UNLIMITED = 1 << 60

#: The inode of the PID namespace that the kernel starts with.
_FIRST_PID_NAMESPACE = "pid:[4026531836]"


class Mount(NamedTuple):
    """Where something is mounted."""

    point: str
    options: tuple[str, ...]
    type: str


class Memory(NamedTuple):
    """A memory cgroup that has a limit."""

    name: str
    limit: int


class Open(NamedTuple):
    """An object of a cache that has lost its name, and a process that still has it open."""

    pid: int
    name: str
    destroyed: bool  # says so itself, so that its processes come to a new one with their next call


class Host:
    def __init__(self, root: str = "/") -> None:
        """`root` is where its files are."""
        self._root = Path(root)

    def read(self, path: str) -> str | None:
        try:
            return (self._root / path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        return (self._root / path).exists()

    # ---- mounts and memory

    def mount_of(self, path: str) -> Mount | None:
        """Return the mount that a path is in, the last one where several hide each other."""
        found = None
        for line in (self.read("proc/self/mountinfo") or "").splitlines():
            before, _, after = line.partition(" - ")
            fields, kind = before.split(), after.split()
            if len(fields) < 6 or len(kind) < 1:
                continue
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4])
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            if inside and (found is None or len(point) >= len(found.point)):
                options = (*fields[5].split(","), *(kind[2].split(",") if len(kind) > 2 else ()))
                found = Mount(point, options, kind[0])
        return found

    def memory(self) -> int | None:
        """Return the bytes of memory and swap."""
        found = re.findall(r"^(?:MemTotal|SwapTotal):\s+(\d+) kB", self.read("proc/meminfo") or "", re.MULTILINE)
        return sum(map(int, found)) * 1024 if found else None

    def cgroup(self, pid: int | str = "self") -> Memory | None:
        """Return the tightest memory limit above a process, None if there is none to be known."""
        best: Memory | None = None
        for line in (self.read(f"proc/{pid}/cgroup") or "").splitlines():
            _, controllers, path = [*line.split(":", 2), "", ""][:3]
            if controllers == "":
                base, file = "sys/fs/cgroup", "memory.max"
            elif "memory" in controllers.split(","):
                base, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
            else:
                continue
            parts = [part for part in path.split("/") if part]
            for depth in range(len(parts), -1, -1):
                name = "/".join(parts[:depth])
                text = (self.read(f"{base}/{name}/{file}") or "").strip()
                if text.isdigit() and int(text) < _UNLIMITED and (best is None or int(text) < best.limit):
                    best = Memory(f"/{name}", int(text))
        return best

    # ---- systemd

    def has_logind(self) -> bool:
        return self.exists("run/systemd/system")

    def removes_ipc(self) -> tuple[bool, str]:
        """Return whether logind removes the objects of users who log out, and which file says so."""
        value, source = True, "the default"
        for path in self._logind_files():
            section = ""
            for line in (self.read(path) or "").splitlines():
                text = line.strip()
                if text.startswith("["):
                    section = text
                name, equals, given = text.partition("=")
                if section == "[Login]" and equals and name.strip() == "RemoveIPC":
                    value = given.strip().lower() in ("1", "yes", "y", "true", "t", "on")
                    source = f"/{path}"
        return value, source

    def _logind_files(self) -> Iterator[str]:
        """The main file, then the drop-ins by name; of the same name only the one that comes first counts."""
        yield from [f"{base}/logind.conf" for base in _SYSTEMD if self.exists(f"{base}/logind.conf")][:1]
        drop_ins: dict[str, str] = {}
        for base in _SYSTEMD:
            folder = self._root / base / "logind.conf.d"
            for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
                if name.endswith(".conf"):
                    drop_ins.setdefault(name, f"{base}/logind.conf.d/{name}")
        yield from [path for _, path in sorted(drop_ins.items())]

    def is_system_user(self, uid: int) -> bool:
        """Is it one of those that logind leaves alone?"""
        found = re.search(r"^\s*SYS_UID_MAX\s+(\d+)", self.read("etc/login.defs") or "", re.MULTILINE)
        return uid <= (int(found[1]) if found else 999)

    def lingers(self, user: str) -> bool:
        return self.exists(f"var/lib/systemd/linger/{user}")

    # ---- processes

    def has_process(self, pid: int) -> bool:
        return self.exists(f"proc/{pid}")

    def is_stopped(self, pid: int) -> bool:
        status = self.read(f"proc/{pid}/stat") or ""
        return status.rpartition(")")[2].split()[:1] in (["T"], ["t"])

    def in_first_pid_namespace(self) -> bool:
        try:
            return os.readlink(self._root / "proc/self/ns/pid") == _FIRST_PID_NAMESPACE
        except OSError:
            return True  # nothing to be known

    def open_files(self, pid: int) -> tuple[int, int] | None:
        """Return how many descriptors a process has open, and may have."""
        found = re.search(r"^Max open files\s+(\d+)", self.read(f"proc/{pid}/limits") or "", re.MULTILINE)
        try:
            return (len(os.listdir(self._root / f"proc/{pid}/fd")), int(found[1])) if found else None
        except OSError:
            return None

    def removed_objects(self) -> Iterator[Open]:
        """Objects of caches that have lost their names, and the processes that have them open, as far as we may see."""
        for pid in sorted(int(name) for name in os.listdir(self._root / "proc") if name.isdigit()):
            folder, seen = self._root / f"proc/{pid}/fd", set()
            try:
                for fd in os.listdir(folder):
                    target = os.readlink(folder / fd)
                    _, found, name = target.partition("/dev/shm/coopshm:")
                    if found and name.endswith(" (deleted)") and target not in seen:
                        seen.add(target)
                        yield Open(pid, f"coopshm:{name.removesuffix(' (deleted)')}", _says_destroyed(folder / fd))
            except OSError:
                continue  # it has ended, or is not ours


def _says_destroyed(path: Path) -> bool:
    """The third word of a segment is its state; see csrc/layout.h."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.pread(fd, 8, 16) == (2).to_bytes(8, "little")
    finally:
        os.close(fd)


def user_name(uid: int) -> str:
    """Return the user's name, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
