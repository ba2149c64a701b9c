"""reset, verify, destroy: they take the write lock, and reset runs the callback from the configuration.

Code of the application runs as the application's user. Root who resets the cache of somebody else becomes that user
first, so that it neither runs that user's code with root's rights nor leaves files of root among the application's.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import sys
import traceback
from collections.abc import Callable
from functools import partial

import click

from ..config import resolve_callable
from ..errors import CoopshmError, CorruptError, LayoutError, OwnershipError
from ..limits import check_timeout
from ..resets import wait_for_nodes
from ..stats import collect
from . import segments
from .nodes import node_table
from .segments import UnfinishedError
from .session import Session, complain, json_option, name_argument, version_text
from .text import Line, count

__all__ = ["COMMANDS"]


class _CallbackError(CoopshmError):
    """The on_reset callback raised an exception."""


def _parse_version(_ctx: click.Context, _param: click.Parameter, text: str | None) -> object:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    if text is None:
        return None
    try:
        version: object = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return text
    return version


def _parse_time(_ctx: click.Context, _param: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    number, scale = text, 1.0
    for unit, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0)):
        if text.endswith(unit):
            number, scale = text[: -len(unit)], factor
            break
    try:
        return check_timeout(float(number) * scale, "wait")
    except ValueError as exc:  # ConfigError is one
        raise click.BadParameter(f"{text!r} is no time; write 5s or 500ms") from exc


@click.command("reset")
@name_argument
@click.option(
    "--version",
    metavar="V",
    callback=_parse_version,
    help="The source's version from now on: V as JSON if it is valid JSON, else V as a string. "
    "Default (and null): the next one, which is one more for a whole number and 1 for anything else.",
)
@click.option(
    "--wait",
    metavar="TIME",
    callback=_parse_time,
    help="With a cluster: wait until all nodes have applied it, for at most TIME (5s, 500ms), and tell of each. "
    "If one has not by then, the exit status is 1; the reset reaches it as soon as it can be reached.",
)
@click.option("--no-callback", is_flag=True, help="Do not run the on_reset callback: the source is as it should be.")
@json_option
@click.pass_obj
def _reset(session: Session, name: str, version: object, wait: float | None, no_callback: bool) -> None:
    """Invalidate all of cache NAME, on this host and in its cluster.

    When this has returned, no process returns anything that was computed before, and computations under way are done
    again. A reset to the version that the cache has does nothing.

    The cache's on_reset callback from the configuration runs first, in this process, with the current directory on
    the module path; if it fails, nothing changes. Root who resets the cache of another user becomes that user for it.

    \b
    Examples:
      coopshm-admin reset pages
      coopshm-admin reset pages --version 2026-11       a string
      coopshm-admin reset pages --version 7             a number
      coopshm-admin reset pages --version '"7"'         a string
      coopshm-admin reset pages --version '{"a": [1]}'
    """
    place = session.place(name)
    settings = session.config.caches.get(name)
    callback = settings.on_reset if settings and not no_callback else None
    if callback is None:
        before, after = segments.reset(place, version, None)
    else:
        _become_owner(place)
        before, after = segments.reset(place, version, partial(_call_back, session, place, callback))
    old, new = version_text(before), version_text(after)
    changed, called = old != new, old != new and callback is not None
    if changed:
        text = f"{place}: version {old} -> {new} ({'after the' if called else 'no'} on_reset callback)"
    else:
        text = f"{place} has version {old} already: nothing was reset"
    document = {**place._asdict(), "old": before, "new": after, "changed": changed, "callback": called}
    if wait is None:
        session.print(document, text)
        return
    nodes = wait_for_nodes(segments.attach(place), wait)
    behind = [node.name for node in nodes if not node.applied]
    document["nodes"] = [node.as_dict() for node in nodes]
    session.print(document, text, *([node_table(nodes)] if nodes else ["no other node is known"]))
    if behind:
        complain(f"not applied within {wait:g} seconds by {', '.join(behind)}")
        raise SystemExit(1)


def _become_owner(place: segments.Place) -> None:
    """As root, give up all rights but those of the segment's owner, for good."""
    owner = segments.owner(place)
    if owner is None or os.geteuid() != 0 or owner.st_uid == 0:
        return
    try:
        try:
            user = pwd.getpwuid(owner.st_uid)
        except KeyError:
            os.setgroups([])
            os.setgid(owner.st_gid)
        else:
            os.initgroups(user.pw_name, user.pw_gid)
            os.setgid(user.pw_gid)
            os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
        os.setuid(owner.st_uid)
    except OSError as exc:
        raise OwnershipError(
            f"{place} belongs to uid {owner.st_uid}, and its on_reset callback must not run as root, but becoming that "
            f"user failed: {exc.strerror or exc}; use --no-callback, or run this as that user"
        ) from exc


def _call_back(
    session: Session, place: segments.Place, callback: str | Callable[[object], object], version: object
) -> None:
    """Run the application's code: in its directory, with its configuration, and its output out of ours."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if session.config_path is not None:
        os.environ["COOPSHM_CONFIG"] = session.config_path
    os.environ["COOPSHM_NAMESPACE"] = session.config.namespace
    with contextlib.redirect_stdout(sys.stderr):
        function = resolve_callable(callback, f"caches.{place.cache}.on_reset")
        try:
            function(version)
        except (Exception, SystemExit) as exc:
            traceback.print_exc()
            raise _CallbackError(
                f"the on_reset callback {callback!r} raised {type(exc).__name__}: {exc}; nothing was reset"
            ) from exc


@click.command("verify")
@name_argument
@click.option(
    "--no-lock", is_flag=True, help="Check only what can be checked without the write lock: header and entries."
)
@json_option
@click.pass_obj
def _verify(session: Session, name: str, no_lock: bool) -> None:
    """Check every structure of cache NAME. Exit status 1 when there are faults.

    Entries are looked up without any lock. Then this takes the write lock while it reads the states of all slots and
    free space, some 10 ms for a million entries: hits go on meanwhile, misses wait. If it is killed then, the next one
    who wants the lock takes it over. With --no-lock it is in nobody's way at all, and needs nobody: it works beside a
    stopped process that holds the lock.
    """
    place = session.place(name)
    faults = segments.attach(place).verify(locking=not no_lock)
    document = {**place._asdict(), "locked": not no_lock, "sound": not faults, "faults": faults}
    if faults:
        title = Line(f"{place} has {count(len(faults), 'fault', 'faults')}:", "bad")
        session.print(document, title, *faults)
        sys.exit(1)
    session.print(document, f"{place} is sound")


@click.command("destroy")
@name_argument
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def _destroy(session: Session, name: str, yes: bool) -> None:
    """Remove the segment of cache NAME from the host.

    Processes that use it go on with a new, empty one. A segment that is damaged, unfinished, or was made by
    another release of coopshm can be removed too.
    """
    place = session.place(name)
    seen = segments.check_removable(place)
    try:
        segment = segments.attach(place)
        stats = collect(place.cache, segment)
        what = f"{count(stats.entries, 'entry', 'entries')}, {count(stats.processes, 'process', 'processes')}"
    except (CorruptError, LayoutError, UnfinishedError) as exc:
        segment, what = None, str(exc)
    if not yes:
        # Not by click.confirm(), which in click 8.1 prints to stdout as well.
        click.echo(f"Destroy {place} ({what})? [y/N]: ", nl=False, err=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise click.Abort()
    if segment is not None:
        segment.destroy()
    else:
        segments.remove(place, seen)
    session.print({**place._asdict(), "destroyed": True}, f"{place} was destroyed")


COMMANDS = (_reset, _verify, _destroy)
