"""What the commands share: the options before the command, how they print, and how they fail."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import IO

import click

from ..config import Config, check_name, load
from ..errors import BusyError, ConfigError, CoopshmError, OwnershipError, SegmentError
from ..versions import encode_version
from .segments import MissingError, Place, existing
from .text import Block, Line, plain, printable

__all__ = [
    "JSON_HELP",
    "NOTHING",
    "FailedError",
    "NothingError",
    "Session",
    "complain",
    "json_option",
    "name_argument",
    "names_argument",
    "namespace_option",
    "version_text",
]

#: Exit statuses; 0 is success, and 2 is click's for wrong usage.
FAILED, NOTHING, UNUSABLE, DENIED, BUSY = 1, 3, 4, 5, 6


class NothingError(CoopshmError):
    """What was asked for is not there: no such cache, or no such key in it."""


#: What failures are told apart; the first that fits counts.
_CODES: tuple[tuple[type[CoopshmError], int], ...] = (
    (MissingError, NOTHING),
    (NothingError, NOTHING),
    (OwnershipError, DENIED),
    (BusyError, BUSY),
    (SegmentError, UNUSABLE),
)


class FailedError(click.ClickException):
    """What ends the command with an exit status of its own."""

    def __init__(self, exc: CoopshmError | OSError) -> None:
        super().__init__(str(exc))
        self.exit_code: int = next((code for kind, code in _CODES if isinstance(exc, kind)), FAILED)  # type: ignore[misc]

    def show(self, file: IO[str] | None = None) -> None:
        complain(self.message)


def complain(message: str) -> None:
    """Tell on standard error what is wrong."""
    click.echo(f"coopshm-admin: {printable(message)}", err=True)


def _check_name(_ctx: click.Context, _param: click.Parameter, name: str | None) -> str | None:
    try:
        return None if name is None else check_name(name)
    except ConfigError as exc:
        raise click.BadParameter(str(exc)) from exc


def _check_names(_ctx: click.Context, _param: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        _check_name(_ctx, _param, name)
    return names


class Session:
    """One run of coopshm-admin."""

    def __init__(
        self, config_path: str | None, namespace: str | None, as_json: bool, given: Config | None = None
    ) -> None:
        """`given`: the configuration, where no file is named."""
        self.config_path = config_path
        self._given = given
        self.json = as_json
        self.namespace = namespace

    @cached_property
    def config(self) -> Config:
        loaded = self._given or load(self.config_path)
        return loaded._replace(namespace=self.namespace) if self.namespace else loaded

    def place(self, cache: str) -> Place:
        return Place(self.config.namespace, cache)

    @cached_property
    def pretty(self) -> bool:
        """Does somebody look at the output, on a terminal that can show more than lines?"""
        there = sys.stdout is not None and sys.stdout.isatty()  # None: the shell's `>&-`
        return not self.json and there and os.environ.get("TERM", "dumb") != "dumb"

    def print(self, document: Mapping[str, object], *blocks: Block | str) -> None:
        """Print the result of the command: as JSON where that was asked for, else the blocks."""
        shown = [Line(block) if isinstance(block, str) else block for block in blocks]
        if self.json:
            click.echo(json.dumps(document))
        elif self.pretty:
            from .pretty import show

            show(shown)
        else:
            click.echo(plain(shown))


def _set_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    session = ctx.find_object(Session)
    if value and session is not None:
        session.json = True


def _complete_cache(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a cache, of the namespace that the options before the command tell."""
    before = ctx.parent.params if ctx.parent else {}
    try:
        namespace = Session(before.get("config_path"), before.get("namespace"), False).config.namespace
        found = [place.cache for place in existing(namespace)]
    except (CoopshmError, OSError):
        return []  # a completion has nobody to complain to
    return [name for name in found if name.startswith(incomplete)]


def _complete_namespace(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    try:
        found = sorted({place.namespace for place in existing()})
    except OSError:
        return []
    return [name for name in found if name.startswith(incomplete)]


JSON_HELP = "Print one JSON document."
#: Not handed to the command: it sets what the option before the command would.
json_option = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    callback=_set_json,
    help=f"{JSON_HELP} Also before the command.",
)
namespace_option = click.option(
    "--namespace",
    callback=_check_name,
    shell_complete=_complete_namespace,
    metavar="NS",
    help="Default: $COOPSHM_NAMESPACE, else that of the configuration, else 'default'.",
)
name_argument = click.argument("name", callback=_check_name, shell_complete=_complete_cache)
names_argument = click.argument(
    "names", nargs=-1, metavar="[NAME]...", callback=_check_names, shell_complete=_complete_cache
)


def version_text(version: object) -> str:
    """Return a version as JSON, so that 1 and "1" are told apart."""
    return encode_version(version).decode()
