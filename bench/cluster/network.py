"""Hosts on one switch: each is a network, a mount and a PID namespace, with its own address, /dev/shm and processes.

A host lives as long as its first process, `cat`, which ends when the bench closes the pipe that it reads, or dies: then
the kernel ends all that runs there and takes the rest away. Nothing has a name outside, so nothing can be left behind.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["Host", "Switch", "enter_mounts", "until", "why_not"]

_CLONE_NEWNS, _CLONE_FS = 0x00020000, 0x00000200
_libc = ctypes.CDLL(None, use_errno=True)
_FLAGS = ("-n", "-m", "-p", "-f", "--mount-proc", "--kill-child")
_SWITCH = "ip link add s type bridge && ip link set s up && echo up && exec cat"
_BOOT = "mount -t tmpfs -o size=2g,mode=1777 tmpfs /dev/shm && ip link set lo up && echo up && exec cat"
#: Seconds, for whatever is waited for.
_WATCHDOG = 120.0


def why_not() -> str:
    """Why there can be no hosts here; empty if there can."""
    if not (shutil.which("ip") and shutil.which("nsenter")):
        return "iproute2 is not installed"
    probe = "ip link add p1 type veth peer name p2 && ip link add s type bridge && mount -t tmpfs tmpfs /dev/shm"
    done = subprocess.run(["unshare", *_FLAGS, "sh", "-c", probe], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"network namespaces need root: {done.stderr.strip()}"


def until(condition: Callable[[], object], what: Callable[[], str], pause: float = 0.02) -> None:
    """Return once the condition holds.

    Raises:
        RuntimeError: it never does; with what `what()` says.
    """
    deadline = time.monotonic() + _WATCHDOG
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"it did not come to that: {what()}")
        time.sleep(pause)


def child_of(process: subprocess.Popen[bytes]) -> int:
    """The process that `unshare` or `nsenter` has forked, once there is one."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: process.poll() is not None or children.read_text(), lambda: f"{process.args!r} forks", 0.002)
    if process.returncode is not None:
        raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
    return int(children.read_text().split()[0])


class _Keeper:
    """The first process of a namespace."""

    def __init__(self, *flags: str, boot: str) -> None:
        self._process = subprocess.Popen(
            ["unshare", *flags, "sh", "-c", boot],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # that its child was killed; why there can be none, `why_not` says
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"up\n":
            raise RuntimeError("the namespaces could not be made")
        self.pid = child_of(self._process) if "-f" in flags else self._process.pid

    def ip(self, *commands: str) -> None:
        """Run commands of ip(8) in its network."""
        command = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "ip", "-batch", "-"]
        done = subprocess.run(command, input="\n".join(commands), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"ip {commands}: {done.stderr}")

    def end(self) -> None:
        """When this returns, nothing of it is left."""
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait(_WATCHDOG)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class Switch(_Keeper):
    """What hosts are connected by."""

    def __init__(self) -> None:
        super().__init__("-n", boot=_SWITCH)


class Host(_Keeper):
    """One host: `number` is 1 to 254, and part of its address."""

    def __init__(self, switch: Switch, number: int) -> None:
        super().__init__(*_FLAGS, boot=_BOOT)
        self.number = number
        self.address = f"10.9.0.{number}"
        switch.ip(f"link add p{number} type veth peer name eth0 netns {self.pid}", f"link set p{number} master s up")
        self.ip(f"address add {self.address}/24 dev eth0", "link set eth0 up")

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command that runs this one in the host; it forks (see child_of)."""
        root = f"/proc/{self.pid}/ns"
        return ["nsenter", f"--net={root}/net", f"--mount={root}/mnt", f"--pid={root}/pid", *arguments]

    def wire(self) -> tuple[int, int]:
        """Bytes that it has received from the switch and sent to it, headers of Ethernet, IP and TCP included."""
        for line in Path(f"/proc/{self.pid}/net/dev").read_text().splitlines():
            name, _, counts = line.partition(":")
            if name.strip() == "eth0":
                fields = counts.split()
                return int(fields[0]), int(fields[8])
        raise RuntimeError(f"host {self.number} has no eth0")


def enter_mounts(pid: int) -> None:
    """This thread has a copy of the mounts of process `pid`'s host from now on, with this process's own /proc."""
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(_CLONE_FS) or _libc.setns(namespace, _CLONE_NEWNS) or _libc.unshare(_CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "the mounts of a host cannot be entered")
    finally:
        os.close(namespace)
    if _libc.mount(b"proc", b"/proc", b"proc", 0, None):
        raise OSError(ctypes.get_errno(), "/proc cannot be mounted")
