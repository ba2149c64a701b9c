"""The command line: the options that stand before the command, and the exit status."""

from __future__ import annotations

import sys

import click

from ..config import Config
from ..errors import CoopshmError
from . import changing, entries, looking, serving
from .session import JSON_HELP, FailedError, Session, namespace_option

__all__ = ["cli"]


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except CoopshmError as exc:
            raise FailedError(exc) from exc

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of the parts, rather than of the alphabet


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done; 1 failed (stderr says why), declined, or faults found; 2 wrong usage.",
)
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    help="Configuration. Default: the file that $COOPSHM_CONFIG names, else ./coopshm.toml if there is one.",
)
@namespace_option
@click.option("--json", "as_json", is_flag=True, help=f"{JSON_HELP} Also after the command.")
@click.pass_context
def cli(ctx: click.Context, config_path: str | None, namespace: str | None, as_json: bool) -> None:
    """Look at the coopshm caches of this host, reset or remove them.

    list, stats, keys and flights only look on: they take no part in the cache and are in nobody's way. No
    command creates a segment. The configuration need not know the cache: it only tells the namespace, and its
    on_reset callback to reset.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a key may hold what the terminal cannot show
    given = ctx.obj if config_path is None and isinstance(ctx.obj, Config) else None  # see `run`
    ctx.obj = Session(config_path, namespace, as_json, given)


for _command in (*looking.COMMANDS, *entries.COMMANDS, *changing.COMMANDS, *serving.COMMANDS):
    cli.add_command(_command)
