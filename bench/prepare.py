"""`python -m bench.prepare`: installs what the benchmarks compare with, as far as that is possible here.

Servers and tools come from Debian's packages, where that needs no question (as root, or with passwordless sudo);
libraries from the extra `bench` of pyproject.toml, into this environment. What cannot be installed is named, here and
in the results, with the reason; nothing of it is a failure of the benchmarks. Reasons are kept in
build/bench/not-installed.json, which peers/ reads.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

from .peers.prepared import NOT_INSTALLED

#: A program, and the Debian package it comes in.
_PROGRAMS = {"redis-server": "redis-server", "memcached": "memcached", "valgrind": "valgrind"}
#: What building libraries may need, where there is no wheel: tried only if installing them has failed.
_TO_BUILD = ("libmemcached-dev", "zlib1g-dev", "python3-dev", "gcc", "libc6-dev")
#: What peers/ looks for, where it is not the name of the distribution.
_MODULES = {"uWSGI": "uwsgi"}

#: For one attempt to install something; who cannot reach a registry waits for it several times.
_SECONDS = 180


def main() -> int:
    reasons: dict[str, str] = {}
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        said = apt_install([_PROGRAMS[name] for name in missing])
        reasons.update(
            {
                name: said.get(_PROGRAMS[name], "installed, but not in PATH")
                for name in missing
                if shutil.which(name) is None
            }
        )
    wanted = wanted_distributions()
    failed = pip_install(wanted)
    if failed:
        apt_install(_TO_BUILD)
        failed = pip_install(list(failed))
    reasons.update({_MODULES.get(_name(one), _name(one)): why for one, why in failed.items()})
    NOT_INSTALLED.parent.mkdir(parents=True, exist_ok=True)
    NOT_INSTALLED.write_text(json.dumps(reasons, indent=1) + "\n", encoding="utf-8")
    for name, why in reasons.items():
        print(f"bench: not installed, so not compared with: {name}: {why}", file=sys.stderr)
    return 0


def wanted_distributions() -> list[str]:
    """Return the requirements of the extra `bench`, without those that are met."""
    wanted = []
    for requirement in importlib.metadata.requires("coopshm") or []:
        what, _, condition = requirement.partition(";")
        if re.search(r"extra\s*==\s*['\"]bench['\"]", condition) and not what.startswith("coopshm"):
            try:
                importlib.metadata.version(_name(what))
            except importlib.metadata.PackageNotFoundError:
                wanted.append(what.strip())
    return wanted


def _name(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement)
    assert match is not None, requirement
    return match.group()


def pip_install(requirements: Sequence[str]) -> dict[str, str]:
    """Install all at once or, if that fails, one by one; return why which could not be."""
    if not requirements or _pip(requirements) is None:
        return {}
    failed = {one: _pip([one]) for one in requirements}
    return {one: said for one, said in failed.items() if said is not None}


def _pip(requirements: Sequence[str]) -> str | None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    return _run([*command, *requirements], _SECONDS)


def apt_install(packages: Sequence[str]) -> dict[str, str]:
    """Install Debian packages, all at once or, if that fails, one by one; return why which could not be."""
    if os.getuid() == 0:
        as_root = []
    elif shutil.which("sudo") and _run(["sudo", "-n", "true"], 10) is None:
        as_root = ["sudo", "-n"]
    else:
        return {package: f"needs root: apt-get install {package}" for package in packages}
    if shutil.which("apt-get") is None:
        return {package: f"there is no apt-get to install {package} with" for package in packages}
    _run([*as_root, "apt-get", "update", "-q"], _SECONDS)  # if it fails, the lists may be good enough
    install = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive"]
    install += ["apt-get", "install", "-q", "-y", "--no-install-recommends"]
    if _run([*install, *packages], _SECONDS) is None:
        return {}
    failed = {package: _run([*install, package], _SECONDS) for package in packages}
    return {package: said for package, said in failed.items() if said is not None}


def _run(command: Sequence[str], seconds: float) -> str | None:
    """Return None, or the last line of what a failed command said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return str(exc)
    if done.returncode == 0:
        return None
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [f"exit status {done.returncode}"])[-1].strip()[:300]


if __name__ == "__main__":
    sys.exit(main())
