"""`coopshm-sidecar`: the command."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import IO

import click

from .. import config as configuration
from ..config import Config
from ..errors import ConfigError, CoopshmError, count

__all__ = ["main"]

_EPILOG = """\b
Signals:
  TERM, INT  hand on what is not yet sent, then end; workers go on without the cluster
  HUP        read the configuration again; `nodes`, secrets and certificates take
             effect at once, for connections that are made from then on

\b
Exit status:
  0  told to end; with --check: it can be used (stderr has what is doubtful)
  1  failed, or cannot be used (stderr says why)
  2  wrong usage


Environment:
  COOPSHM_CONFIG     the configuration, where --config does not say
  COOPSHM_NAMESPACE  the namespace, where --namespace does not say
  NOTIFY_SOCKET      where the service manager is told of the readiness"""


class _FailedError(click.ClickException):
    """What ends the command with exit status 1."""

    def show(self, file: IO[str] | None = None) -> None:
        _complain(self.message)


def _complain(message: str) -> None:
    click.echo(f"coopshm-sidecar: {message}", err=True)


def _text(exc: CoopshmError | OSError) -> str:
    return exc.strerror if isinstance(exc, OSError) and exc.strerror and not exc.filename else str(exc)


def _check_name(_ctx: click.Context, _param: click.Parameter, name: str | None) -> str | None:
    try:
        return None if name is None else configuration.check_name(name)
    except ConfigError as exc:
        raise click.BadParameter(str(exc)) from exc


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.option(
    "--config",
    "path",
    type=click.Path(),  # so that shells complete it
    metavar="FILE",
    help="The configuration. Default: $COOPSHM_CONFIG, ./coopshm.toml.",
)
@click.option("--namespace", metavar="NS", callback=_check_name, help="Overrides the configuration's.")
@click.option(
    "--check", is_flag=True, help="Check the configuration, the files that it names included, say what it is, and end."
)
@click.option("-v", "--verbose", is_flag=True, help="Tell more.")
@click.version_option(package_name="coopshm", message="%(prog)s %(version)s")
def main(path: str | None, namespace: str | None, check: bool, verbose: bool) -> None:
    """Connect the caches of this host with those of other hosts.

    Runs in the foreground, one per host and namespace, as the user whose caches they are. The configuration's [cluster]
    table says where it listens and which nodes there are.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(levelname)s %(message)s"
        if "JOURNAL_STREAM" in os.environ
        else "%(asctime)s %(levelname)s %(message)s",
    )

    def load() -> Config:
        loaded = configuration.load(path)
        return loaded if namespace is None else loaded._replace(namespace=namespace)

    try:
        from .sidecar import Sidecar  # needs the extra
    except ImportError as exc:
        raise _FailedError(f"{exc}; install coopshm[cluster]") from exc

    try:
        if check:
            _check(load())
        else:

            async def run() -> None:
                await Sidecar(load(), load).run()

            asyncio.run(run())
    except (CoopshmError, OSError) as exc:
        raise _FailedError(_text(exc)) from exc


def _check(config: Config) -> None:
    """Print one line of what a sidecar would do; what is doubtful goes to stderr."""
    from .settings import parse

    settings = parse(config)
    caches = count(len(config.caches), "cache", "caches")
    click.echo(
        f"{config.source}: {caches} ({', '.join(config.caches)}) of namespace {config.namespace}; "
        f"node {settings.name} {settings.describe()}"
    )
    for doubtful in settings.warnings():
        _complain(f"warning: {doubtful}")
