"""Hosts on one switch: each is a network, a mount and a PID namespace: its own addresses, /dev/shm and processes.

A host lives as long as its first process, `cat`, which ends when this process closes the pipe that it reads, or dies.
The kernel then kills all that runs in the host, and its devices and its /dev/shm are gone: nothing has a name outside,
so nothing can be left behind. The switch is such a network too.

What goes wrong between hosts needs no module of the kernel: a link is taken down, or a host is given a neighbour's
address on the wire that nobody has, so that what it sends there is lost without a word.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.procs import WATCHDOG, until

_CLONE_NEWNET = 0x40000000
_NOBODY = "02:00:00:00:ff:ff"
_libc = ctypes.CDLL(None, use_errno=True)

_HOST = ("-n", "-m", "-p", "-f", "--mount-proc", "--kill-child")
_BOOT = "mount -t tmpfs -o size=256m,mode=1777 tmpfs /dev/shm && ip link set lo up && echo up && exec cat"


def _why_not() -> str:
    if not (shutil.which("ip") and shutil.which("nsenter")):
        # As any other user one could not make use of it: then this is how it is.
        return "iproute2 is not installed" if os.geteuid() == 0 else "expected: network namespaces need root"
    probe = "ip link add p1 type veth peer name p2 && ip link add s type bridge && mount -t tmpfs tmpfs /dev/shm"
    done = subprocess.run(["unshare", *_HOST, "sh", "-c", probe], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"expected: no hosts of our own are possible here: {done.stderr.strip()}"


_reason = _why_not()
needs_hosts = pytest.mark.skipif(bool(_reason), reason=_reason)


def child_of(process: subprocess.Popen[Any]) -> int:
    """The process that `unshare` or `nsenter` has forked, once there is one."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    found: list[str] = []
    until(lambda: found.extend(children.read_text().split()) or found or process.poll() is not None)
    assert found, f"{process.args!r} ended with status {process.returncode}"
    return int(found[0])


class Keeper:
    """The first process of a namespace, and the way into it."""

    def __init__(self, *flags: str, boot: str) -> None:
        self._process = subprocess.Popen(
            ["unshare", *flags, "sh", "-c", boot], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "up\n", "the namespace could not be made"
        self.pid = child_of(self._process) if "-f" in flags else self._process.pid
        self._network = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.ended = False

    def ip(self, *commands: str) -> None:
        """Run commands of ip(8) in its network."""
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.pid}/ns/net", "ip", "-batch", "-"],
            input="\n".join(commands),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"ip {commands}: {done.stderr}"

    @contextmanager
    def network(self) -> Iterator[None]:
        """Sockets that this thread makes meanwhile are the host's."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(self._network)
            try:
                yield
            finally:
                _enter(before)
        finally:
            os.close(before)

    def end(self) -> None:
        """Kill all that runs there. When this returns, nothing does."""
        if not self.ended:
            os.kill(self.pid, signal.SIGKILL)  # that of the others is the kernel's, before this one's end is seen
            self._process.wait(WATCHDOG)
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()
            os.close(self._network)
            self.ended = True


def _enter(network: int) -> None:
    if _libc.setns(network, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Host(Keeper):
    """One host: `number` is 1 to 254, and part of its addresses."""

    def __init__(self, switch: Switch, number: int) -> None:
        super().__init__(*_HOST, boot=_BOOT)
        self.number = number
        self.address = f"10.9.0.{number}"
        self._switch = switch
        self._mac = f"02:00:00:00:00:{number:02x}"
        try:
            switch.ip(
                f"link add p{number} type veth peer name eth0 address {self._mac} netns {self.pid}",
                f"link set p{number} master s up",
            )
            self.ip(f"address add {self.address}/24 dev eth0", "link set eth0 up")
        except BaseException:
            super().end()
            raise

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command that runs this one in the host; it forks (see child_of)."""
        root = f"/proc/{self.pid}/ns"
        return ["nsenter", f"--net={root}/net", f"--mount={root}/mnt", f"--pid={root}/pid", *arguments]

    def within(self) -> list[str]:
        """What runs a command in the host's network as the process that it is. It does not end with the host."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net"]

    def end(self) -> None:
        """Power is lost: nothing says goodbye to the others, and all that ran there is gone when this returns."""
        if not self.ended:
            self._switch.ip(f"link delete p{self.number}")  # by itself it would go somewhat later than the processes
        super().end()

    # ---- what goes wrong

    def unplug(self) -> None:
        """Its link goes down: nothing comes in, nothing goes out."""
        self._switch.ip(f"link set p{self.number} down")

    def plug(self) -> None:
        self._switch.ip(f"link set p{self.number} up")

    def mute(self, *others: Host) -> None:
        """What it sends to those is lost; what they send still comes."""
        self.ip(*(f"neigh replace {other.address} lladdr {_NOBODY} dev eth0 nud permanent" for other in others))

    def unmute(self, *others: Host) -> None:
        self.ip(*(f"neigh replace {other.address} lladdr {other._mac} dev eth0 nud permanent" for other in others))


class Switch(Keeper):
    """What hosts are connected by."""

    def __init__(self) -> None:
        super().__init__("-n", boot="ip link add s type bridge && ip link set s up && echo up && exec cat")


def part(some: Sequence[Host], others: Sequence[Host]) -> None:
    """Nothing gets from the one side to the other any more, in either direction."""
    for host in some:
        host.mute(*others)
    for host in others:
        host.mute(*some)


def heal(some: Sequence[Host], others: Sequence[Host]) -> None:
    for host in some:
        host.unmute(*others)
    for host in others:
        host.unmute(*some)
