"""`coopshm-sidecar`: the command."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import click

from .. import config as configuration
from ..config import Config
from ..errors import CoopshmError

__all__ = ["main"]

_EPILOG = """\b
Signals:
  TERM, INT  hand on what is not yet sent, then end; workers go on without the cluster
  HUP        read the configuration again; `nodes`, secrets and certificates take
             effect at once, for connections that are made from then on

\b
Exit status:
  0  told to end
  1  failed (stderr says why)
  2  wrong usage"""


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.option("--config", "path", metavar="FILE", help="The configuration. Default: $COOPSHM_CONFIG, ./coopshm.toml.")
@click.option("--namespace", metavar="NAME", help="Overrides the configuration's.")
@click.option("--check", is_flag=True, help="Check the configuration, the files that it names included, and end.")
@click.option("-v", "--verbose", is_flag=True, help="Tell more.")
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
        return loaded if namespace is None else loaded._replace(namespace=configuration.check_name(namespace))

    try:
        from .sidecar import Sidecar  # needs the extra
    except ImportError as exc:
        raise click.ClickException(f"{exc}; install coopshm[cluster]") from exc
    from .settings import parse

    try:
        if check:
            parse(load())
        else:

            async def run() -> None:
                await Sidecar(load(), load).run()

            asyncio.run(run())
    except (CoopshmError, OSError) as exc:
        raise click.ClickException(str(exc)) from exc
