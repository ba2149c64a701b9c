"""The command line: the options that stand before the command, and the exit status."""

from __future__ import annotations

import errno
import sys

import click
from click.shell_completion import get_completion_class

from ..config import Config
from ..errors import CoopshmError
from . import changing, checking, entries, looking, nodes, serving, top
from .doctor import command as doctor
from .session import JSON_HELP, FailedError, Session, namespace_option

__all__ = ["cli"]


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except CoopshmError as exc:
            raise FailedError(exc) from exc
        except OSError as exc:  # most likely of writing the result, where there is no room for it
            if exc.errno == errno.EPIPE:
                raise  # click ends in silence: who read has had enough
            raise FailedError(exc) from exc

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of the parts, rather than of the alphabet


_EPILOG = """\b
Exit status:
  0  done; for verify, doctor and config check: and nothing is wrong
  1  failed (stderr says why), declined, or faults found; for reset --wait: a node
     has not applied it in time
  2  wrong usage
  3  there is no such cache, or no such key in it
  4  the segment cannot be used: damaged, unfinished, or of another release
  5  not permitted: it belongs to another user
  6  busy: a stopped process holds what is needed

\b
Environment:
  COOPSHM_CONFIG     the configuration, where --config does not say
  COOPSHM_NAMESPACE  the namespace, where --namespace does not say
  NO_COLOR           no colours; TERM=dumb: plain text, also on a terminal

\b
Files:
  ./coopshm.toml     the configuration, where nothing else says
  /dev/shm/coopshm:NAMESPACE:CACHE

\b
Examples:
  coopshm-admin list --all
  coopshm-admin top pages
  coopshm-admin keys pages --sort size --limit 20
  coopshm-admin get pages "('product', 42)"
  coopshm-admin reset pages --version 2026-11
  coopshm-admin doctor --json

What is shown on a terminal in colours is plain text in a pipe, and one JSON document with --json.
`coopshm-admin COMMAND --help` says more about each command."""


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(),  # so that shells complete it
    metavar="FILE",
    help="Configuration. Default: the file that $COOPSHM_CONFIG names, else ./coopshm.toml if there is one.",
)
@namespace_option
@click.version_option(package_name="coopshm", message="%(prog)s %(version)s")
@click.option("--json", "as_json", is_flag=True, help=f"{JSON_HELP} Also after the command.")
@click.pass_context
def cli(ctx: click.Context, config_path: str | None, namespace: str | None, as_json: bool) -> None:
    """Look at the coopshm caches of this host, find out what is wrong with them, reset or remove them.

    list, stats, top, keys, get, flights and doctor only look: they take no lock and no part in the cache, are counted
    nowhere, and work beside a stopped process and on a full /dev/shm. No command creates a segment. The configuration
    need not know the cache: it tells the namespace, the on_reset callback to reset, and doctor what to expect. Root can
    look at and reset the caches of all users.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a key may hold what the terminal cannot show
    given = ctx.obj if config_path is None and isinstance(ctx.obj, Config) else None  # see `run`
    ctx.obj = Session(config_path, namespace, as_json, given)


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def _completion(shell: str) -> None:
    """Print the script that has SHELL complete what is typed.

    That is commands, options, and the names of caches and namespaces.

    \b
    in ~/.bashrc:                eval "$(coopshm-admin completion bash)"
    in ~/.zshrc, after compinit: eval "$(coopshm-admin completion zsh)"
    once, for fish:
      coopshm-admin completion fish > ~/.config/fish/completions/coopshm-admin.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "coopshm-admin", "_COOPSHM_ADMIN_COMPLETE").source())


for _command in (
    *looking.COMMANDS,
    *top.COMMANDS,
    *entries.COMMANDS,
    *doctor.COMMANDS,
    *checking.COMMANDS,
    *changing.COMMANDS,
    *nodes.COMMANDS,
    *serving.COMMANDS,
    _completion,
):
    cli.add_command(_command)
