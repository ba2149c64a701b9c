"""doctor: all examinations, printed with the most urgent first."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import click

from ...config import Config, load
from ...errors import ConfigError
from ...objects import existing
from ..session import Session, json_option
from ..text import Block, Line, count, printable
from . import memory, objects, system
from .finding import ERROR, LEVELS, NOTE, OK, WARNING, Finding
from .host import Host

__all__ = ["COMMANDS", "examine"]

_MARKS = {ERROR: "error", WARNING: "warning", NOTE: "note", OK: "ok"}
_STYLES = {ERROR: "bad", WARNING: "warn", NOTE: "key", OK: "good"}


def examine(config: Config, host: Host) -> Iterator[Finding]:
    """Examine the host and all caches on it.

    Args:
        config: tells which caches there will be, and which namespace is this deployment's.
    """
    found = {place: objects.look(place) for place in existing()}
    known = {place: one for place, one in found.items() if one is not None}
    needs = objects.needs(config, known)
    pids = {pid: str(place) for place, one in known.items() for pid in one.pids}
    uids = {one.status.st_uid for one in known.values()} | {os.geteuid()}
    yield from memory.check_mount(host)
    yield from memory.check_size(host, needs)
    yield from memory.check_cgroup(host, needs, pids)
    yield from system.check_kernel()
    yield from system.check_runtime()
    yield from system.check_files(host, len(needs), pids)
    yield from system.check_logind(host, uids)
    yield from system.check_namespaces(host, pids)
    for place, one in known.items():
        yield from objects.check_object(place, one, config, host)
    yield from objects.check_removed(host)


@click.command("doctor")
@click.option("--quiet", "-q", is_flag=True, help="Only errors and warnings.")
@json_option
@click.pass_obj
def _doctor(session: Session, quiet: bool) -> None:
    """Find what keeps caches of this host from working.

    Each finding comes with a remedy. Looked at are the mount and size of /dev/shm and the memory cgroup, beside the sum
    of what all caches may take; whether systemd removes objects of users who log out (RemoveIPC); kernel, libc and
    limits; objects of dead deployments, of other releases, of wrong owners or modes, damaged or removed under their
    processes; caches that are full, or held up by a stopped process. Exit status 1 when there are errors or warnings.

    Run it where the server runs: in its container, with its configuration, as its user or as root (root sees the
    caches of all users). It changes nothing and is in nobody's way.
    """
    findings: list[Finding] = []
    try:
        config = session.config
        text = f"{config.source}: namespace {config.namespace!r}, {count(len(config.caches), 'cache', 'caches')}"
        findings.append(Finding("config", OK, text))
    except ConfigError as exc:
        findings.append(Finding("config", ERROR, str(exc), "coopshm-admin config check shows all mistakes"))
        config = load({})
    findings += examine(config, Host())
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    shown = [finding for finding in findings if finding.fault or not quiet]
    faults = sum(finding.fault for finding in findings)
    blocks: list[Block] = []
    for finding in shown:
        subject = f" {finding.subject}:" if finding.subject else ""
        blocks.append(
            Line(
                printable(f"{_MARKS[finding.level]:<8} {finding.check}:{subject} {finding.text}"),
                _STYLES[finding.level],
            )
        )
        if finding.remedy:
            blocks.append(Line(printable(f"{'':<8} -> {finding.remedy}")))
    blocks.append(Line(f"{count(faults, 'fault', 'faults')} found" if faults else "nothing is wrong", "title"))
    document = {"sound": not faults, "findings": [finding._asdict() for finding in shown]}
    session.print(document, *blocks)
    if faults:
        sys.exit(1)


COMMANDS = (_doctor,)
