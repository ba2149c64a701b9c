"""metrics, serve: for a monitoring system, and a page for people. What they show is made in coopshm/status.

That is imported by who is about to use it: an HTTP server would double the time that every other command needs.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import TYPE_CHECKING

import click

from ..errors import ConfigError, CoopshmError
from ..objects import Place
from ..observe import attach
from .session import Session, json_option, names_argument

if TYPE_CHECKING:
    from ..status.server import Address

__all__ = ["COMMANDS"]

_FORMATS = ("openmetrics", "prometheus")


class _MetricsError(CoopshmError):
    """The metrics cannot be had."""


@click.command("metrics")
@names_argument
@click.option("--all", "everywhere", is_flag=True, help="The caches of all namespaces.")
@click.option(
    "--format",
    type=click.Choice(_FORMATS),
    default="openmetrics",
    show_default=True,
    help="OpenMetrics, or the older text format of Prometheus.",
)
@click.pass_obj
def _metrics(session: Session, names: tuple[str, ...], everywhere: bool, format: str) -> None:
    """Print metrics of caches, as a monitoring system reads them.

    Those of caches NAME, or of all. One that cannot be read is down (coopshm_up); stderr says why.

    Needs the package prometheus_client: pip install 'coopshm[metrics]'. For something that is scraped, see serve;
    for a file that node_exporter picks up, write this into its directory (under another name, then renamed).
    """
    if names and everywhere:
        raise click.UsageError("--all goes with no NAME")
    try:
        from .. import metrics
    except ImportError as exc:
        raise _MetricsError(str(exc)) from exc
    from ..status.look import Watch

    namespace = session.config.namespace
    for name in names:
        attach(Place(namespace, name)).forget()  # or raise what is wrong with it
    looks = Watch(None if everywhere else namespace, names).looks()
    text = metrics.openmetrics_text(looks) if format == "openmetrics" else metrics.prometheus_text(looks)
    click.echo(text, nl=False)
    for look in looks:
        if look.error is not None:
            click.echo(f"coopshm-admin: {look.error}", err=True)


def _address(_ctx: click.Context, _param: click.Parameter, text: str) -> Address:
    from ..status.server import parse_address

    try:
        return parse_address(text)
    except ConfigError as exc:
        raise click.BadParameter(str(exc)) from exc


class _Ended(Exception):  # noqa: N818  # it is no error
    """A signal asks to end."""


def _end(_number: int, _frame: FrameType | None) -> None:
    raise _Ended


@click.command("serve")
@click.option(
    "--listen",
    default="127.0.0.1:7410",
    show_default=True,
    metavar="[HOST:]PORT",
    callback=_address,
    help="Where. HOST is an address of loopback (see --allow-remote); PORT 0 is any that is free.",
)
@click.option("--all", "everywhere", is_flag=True, help="Show the caches of all namespaces.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look. 300 looks are kept for the charts.",
)
@click.option("--allow-users", is_flag=True, help="Let all users of this host see the page, which shows keys.")
@click.option(
    "--allow-remote",
    is_flag=True,
    help="Listen elsewhere than on loopback. Whoever can reach it sees the page: there is no log-in and no encryption.",
)
@click.option(
    "--allow-name",
    "allowed",
    multiple=True,
    metavar="NAME",
    help="A host name by which browsers may ask for it, besides localhost and addresses.",
)
@json_option
@click.pass_obj
def _serve(
    session: Session,
    listen: Address,
    everywhere: bool,
    interval: float,
    allow_users: bool,
    allow_remote: bool,
    allowed: tuple[str, ...],
) -> None:
    """Serve a page that shows all caches live, and /metrics.

    Until it is interrupted; /metrics is for Prometheus. The address is printed when it can be asked for. The page is
    for looking only: nothing on it changes anything. Users of this host other than yours and root get /metrics, but not
    the page.
    """
    if not (listen.is_loopback or allow_remote):
        raise click.UsageError(
            f"{listen.host} is not an address of loopback, and the page shows keys to whoever can reach it. Use an SSH "
            f"tunnel or a proxy that asks who it is; or --allow-remote, if that is meant"
        )
    from ..status.history import History, Sampler
    from ..status.look import Watch
    from ..status.page import Page
    from ..status.server import Server

    watch, history = Watch(None if everywhere else session.config.namespace), History()
    page = Page(watch, history, names=allowed)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        with Server(listen, page, everybody=allow_users or allow_remote) as server, Sampler(watch, history, interval):
            session.print({"url": server.address.url()}, f"serving {server.address.url()} (end it with Ctrl-C)")
            server.serve_forever()
    except _Ended:
        pass


COMMANDS = (_metrics, _serve)
