"""What nodes on one machine stand on: each on a network and a /dev/shm of its own (namespaces), or, where those are not
allowed, all on the same, told apart by loopback addresses and by names.

With namespaces, all of it, the switch between the nodes included, is in namespaces of this demonstration, whose first
process it is: `enter` starts it anew in there. When that process ends, for whatever reason, the kernel ends all others
in there and takes the rest away. Without root it is done in a user namespace, where that is allowed.
"""

import contextlib
import os
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_INSIDE = "DEMO_CLUSTER_INSIDE"
_UNSHARE = ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-n", "-m", "-p", "-f", "--mount-proc", "--kill-child"]
_SWITCH = "ip link add demo type bridge && ip address add 10.9.1.254/24 dev demo && ip link set demo up"
_BOOT = "mount -t tmpfs -o mode=1777 tmpfs /dev/shm && ip link set lo up && echo up && exec cat"


class Ground(ABC):
    """Where nodes can be set down; `number` is 1 to 253."""

    @abstractmethod
    def address(self, number: int) -> str: ...

    @abstractmethod
    def namespace(self, number: int) -> str:
        """That node's caches are named by it."""

    @abstractmethod
    def boot(self, number: int) -> list[str]:
        """Have a node, with nothing in its memory; the command that runs what follows it there."""

    @abstractmethod
    def cut(self, number: int) -> None:
        """Others do not hear of that node any more, as far as that can be had."""

    @abstractmethod
    def end(self, number: int) -> None:
        """Its processes have been killed: now its memory is lost. Can be done twice."""


class Hosts(Ground):
    """Namespaces."""

    def __init__(self) -> None:
        subprocess.run(["sh", "-c", _SWITCH], check=True)
        self._keepers: dict[int, subprocess.Popen[bytes]] = {}

    def address(self, number: int) -> str:
        return f"10.9.1.{number}"

    def namespace(self, number: int) -> str:
        return "demo"

    def boot(self, number: int) -> list[str]:
        keeper = subprocess.Popen(
            ["unshare", "-n", "-m", "sh", "-c", _BOOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert keeper.stdout is not None
        if keeper.stdout.readline() != b"up\n":
            raise RuntimeError("the namespaces of a node could not be made")
        self._keepers[number] = keeper
        port, address = f"p{number}", f"{self.address(number)}/24"
        _ip(f"link add {port} type veth peer name eth0 netns {keeper.pid}", f"link set {port} master demo up")
        enter = ["nsenter", f"--net=/proc/{keeper.pid}/ns/net", f"--mount=/proc/{keeper.pid}/ns/mnt"]
        for command in (["address", "add", address, "dev", "eth0"], ["link", "set", "eth0", "up"]):
            subprocess.run([*enter, "ip", *command], check=True)
        return enter

    def cut(self, number: int) -> None:
        if number in self._keepers:
            _ip(f"link delete p{number}")

    def end(self, number: int) -> None:
        if keeper := self._keepers.pop(number, None):
            keeper.kill()
            keeper.wait()


class Loopback(Ground):
    """This host, as it is."""

    def __init__(self) -> None:
        self._run = os.getpid()  # addresses and names are this run's

    def address(self, number: int) -> str:
        return f"127.{self._run >> 8 & 0xFF}.{self._run & 0xFF}.{number}"

    def namespace(self, number: int) -> str:
        return f"demo-{self._run}-node{number}"

    def boot(self, number: int) -> list[str]:
        return []

    def cut(self, number: int) -> None:
        """Not to be had: its connections end with its processes."""

    def end(self, number: int) -> None:
        for path in Path("/dev/shm").glob(f"coopshm:{self.namespace(number)}:*"):
            path.unlink()


def _ip(*commands: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


@contextmanager
def enter(arguments: Sequence[str], *, loopback: bool) -> Iterator[Ground | int]:
    """The ground, and $DEMO_DIR, which is a directory for this run. Or the status of this program, which has been run
    with these arguments in namespaces of its own.

    Args:
        loopback: do without namespaces even where they are allowed.
    """
    if _INSIDE in os.environ:
        yield Hosts()
        return
    with tempfile.TemporaryDirectory(prefix="coopshm-demo-") as directory:
        os.environ["DEMO_DIR"] = directory
        reason = "as was asked for" if loopback else _why_not()
        if reason:
            print(f"nodes share this host's network and memory ({reason})")
            yield Loopback()
        else:
            # If this process is told to end, `run` kills unshare, and the kernel all that is in there.
            yield subprocess.run([*_UNSHARE, *arguments], env={**os.environ, _INSIDE: "1"}, check=False).returncode


def _why_not() -> str:
    with contextlib.suppress(FileNotFoundError):
        can = subprocess.run([*_UNSHARE, "sh", "-c", _SWITCH], capture_output=True, text=True, check=False)
        return f"no namespaces: {can.stderr.strip()}" if can.returncode else ""
    return "no namespaces: there is no unshare"
