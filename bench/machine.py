"""What the figures were taken on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

__all__ = ["describe"]

#: Distributions that the figures depend on, if they are installed.
_PACKAGES = ("coopshm", "cffi", "posix_ipc", "numpy")
_PEERS = ("warp_cache", "uWSGI", "lmdb", "diskcache", "redis", "pylibmc", "dogpile.cache", "UltraDict")


def describe(peers: bool = True) -> dict[str, str]:
    """Return machine and versions, in words, ready to be printed."""
    cores = len(os.sched_getaffinity(0))
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    described = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _first_line("git", "describe", "--always", "--dirty", "--abbrev=12"),
        "CPU": _cpu(),
        "cores": f"{cores} usable of {os.cpu_count()}",
        "memory": _memory(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        # Distributions optimize with a profile; a plain build, such as pyenv's, is a good deal slower.
        "Python built": f"{platform.python_compiler()}, {_optimizations()}",
        "C compiler": _first_line(os.environ.get("CC", "cc"), "--version"),
        "packages": ", ".join(versions),
        # More than the questions' own processes explain means that the figures are noisy.
        "load average at the start": f"{os.getloadavg()[0]:.1f} (1 min), {os.getloadavg()[1]:.1f} (5 min)",
    }
    if peers:
        described["peers"] = ", ".join(_peers())
    return described


def _peers() -> Iterator[str]:
    """Yield names and versions of what is compared with, or that it is not installed."""
    for package in _PEERS:
        try:
            yield f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{package} not installed"
    for name, option in (("redis-server", "--version"), ("memcached", "--version")):
        words = _first_line(name, option).replace("v=", "").split()
        yield f"{name} {next((word for word in words if word[0].isdigit()), 'not installed')}"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _optimizations() -> str:
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS"))
    found = [name for name in ("--enable-optimizations", "--with-lto") if name in arguments]
    return " ".join(found) or "without --enable-optimizations"


def _memory() -> str:
    gib = 1024**3
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    shm = os.statvfs("/dev/shm")
    return f"{total / gib:.1f} GiB, /dev/shm {shm.f_blocks * shm.f_frsize / gib:.1f} GiB"


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return (done.stdout.splitlines() or ["unknown"])[0]
