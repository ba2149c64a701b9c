"""What the commands share: the options before the command, how they fail, and how they print."""

from __future__ import annotations

import json
from functools import cached_property
from typing import IO

import click

from ..config import Config, check_name, load
from ..errors import ConfigError
from ..versions import encode_version
from .segments import Place

__all__ = [
    "JSON_HELP",
    "FailedError",
    "Session",
    "json_option",
    "name_argument",
    "namespace_option",
    "version_text",
]


class FailedError(click.ClickException):
    """What ends the command with exit status 1."""

    def show(self, file: IO[str] | None = None) -> None:
        click.echo(f"coopshm-admin: {self.message}", err=True)


def _check_name(_ctx: click.Context, _param: click.Parameter, name: str | None) -> str | None:
    try:
        return None if name is None else check_name(name)
    except ConfigError as exc:
        raise click.BadParameter(str(exc)) from exc


class Session:
    """One run of coopshm-admin."""

    def __init__(self, config_path: str | None, namespace: str | None, as_json: bool) -> None:
        self.config_path = config_path
        self.json = as_json
        self._namespace = namespace

    @cached_property
    def config(self) -> Config:
        loaded = load(self.config_path)
        return loaded._replace(namespace=self._namespace) if self._namespace else loaded

    def place(self, cache: str) -> Place:
        return Place(self.config.namespace, cache)

    def print(self, document: dict[str, object], text: str) -> None:
        click.echo(json.dumps(document) if self.json else text)


def _set_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    session = ctx.find_object(Session)
    if value and session is not None:
        session.json = True


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
    metavar="NS",
    help="Default: $COOPSHM_NAMESPACE, else that of the configuration, else 'default'.",
)
name_argument = click.argument("name", callback=_check_name)


def version_text(version: object) -> str:
    """Return a version as JSON, so that 1 and "1" are told apart."""
    return encode_version(version).decode()
