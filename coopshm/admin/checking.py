"""config check: the configuration as it takes effect, or everything that is wrong with it.

`load` stops at the first mistake, as a server should. Here each setting is loaded by itself, so that all are found.
"""

from __future__ import annotations

import grp
import importlib.util
import os
import pwd
import re
import sys
from collections.abc import Callable, Iterator, Mapping

import click

from ..config import CacheConfig, Config, load, read_toml, resolve_callable
from ..errors import ConfigError
from ..values import codec
from .session import Session, json_option, version_text
from .text import Cell, Line, Table, count, printable, size

__all__ = ["COMMANDS", "mistakes"]

#: What `load` puts before a message about a mapping.
_LABEL = "<mapping>: "


def mistakes(table: Mapping[str, object]) -> list[str]:
    """Return everything that is not allowed in a configuration, as `load` would put it."""
    caches = table.get("caches", {})
    pieces: list[Mapping[str, object]] = [{name: value} for name, value in table.items() if name != "caches"]
    if not isinstance(caches, Mapping):
        pieces.append({"caches": caches})
        caches = {}
    for name, settings in caches.items():
        if not isinstance(settings, Mapping) or not settings:
            pieces.append({"caches": {name: settings}})
            continue
        for setting, value in settings.items():
            alone = {setting: value}
            if setting == "mode" and "group" in settings:
                alone["group"] = settings["group"]  # one that lets a group in needs one
            pieces.append({"caches": {name: alone}})
    found: dict[str, None] = {}
    for piece in [*pieces, table]:
        try:
            load(piece)
        except ConfigError as exc:
            found[str(exc).removeprefix(_LABEL)] = None
    return list(found)


def host_mistakes(config: Config, imports: bool) -> Iterator[str]:
    """Yield what this host lacks: users, groups, packages, files of the cluster; with `imports`, the application's
    modules."""
    yield from cluster_mistakes(config)
    for cache in config.caches.values():
        at = f"caches.{cache.name if '.' not in cache.name else repr(cache.name)}"
        if isinstance(cache.user, str) and not _exists(pwd.getpwnam, cache.user):
            yield f"{at}.user: there is no user {cache.user!r} on this host"
        if isinstance(cache.group, str) and not _exists(grp.getgrnam, cache.group):
            yield f"{at}.group: there is no group {cache.group!r} on this host"
        try:
            if not (isinstance(cache.serializer, str) and ":" in cache.serializer) or imports:
                codec(cache.serializer)
        except ConfigError as exc:
            yield f"{at}.serializer: {exc}"
        if imports and cache.on_reset is not None:
            try:
                resolve_callable(cache.on_reset, f"{at}.on_reset")
            except ConfigError as exc:
                yield str(exc)


def cluster_mistakes(config: Config) -> Iterator[str]:
    """Yield what a sidecar would refuse to start with. Not where its packages are missing: there is none in here."""
    if config.cluster is None or not _has_cluster():
        return
    from ..cluster.settings import parse

    try:
        parse(config)
    except ConfigError as exc:
        yield str(exc).removeprefix(f"{config.source}: ")


def _has_cluster() -> bool:
    return all(importlib.util.find_spec(package) for package in ("msgspec", "cryptography"))


def _exists(look: Callable[[str], object], name: str) -> bool:
    try:
        look(name)
    except KeyError:
        return False
    return True


@click.group("config")
def _config() -> None:
    """Check the configuration, and show it: `config check`."""


@_config.command("check")
@click.argument("path", required=False, type=click.Path(dir_okay=False))
@click.option(
    "--import",
    "imports",
    is_flag=True,
    help="Import the application's callbacks and serializers, too, which runs its modules. The current directory is on "
    "the module path.",
)
@json_option
@click.pass_obj
def _check(session: Session, path: str | None, imports: bool) -> None:
    """Print the configuration, or all that is wrong with it.

    It is shown as it takes effect: defaults are filled in, and the environment is taken into account. PATH is a
    configuration file; without it, it is the one that any other command would take. Users, groups and packages that
    this host lacks are mistakes as well, and so is what coopshm-sidecar could not use of [cluster]: run it as the same
    user. Exit status 1 when there are any.
    """
    source = path or session.config_path
    try:
        config = session.config if path is None else Session(path, session.namespace, session.json).config
    except ConfigError as exc:
        _refuse(session, source, _all_mistakes(source, exc))
        return
    if imports and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    wrong = list(host_mistakes(config, imports))
    if wrong:
        _refuse(session, config.source, wrong)
        return
    document = {
        "source": config.source,
        "namespace": config.namespace,
        "implicit": config.implicit,
        "caches": {name: _document(cache) for name, cache in config.caches.items()},
        "cluster": _without_password(config.cluster) if config.cluster is not None else None,
        "errors": [],
    }
    lines = [Line(f"source     {config.source}"), Line(f"namespace  {config.namespace}")]
    if config.implicit:
        lines.append(Line("Without a configuration, any name is a cache with these settings:"))
    tables = [
        Table([cache.name, ""], [[name, Cell(value)] for name, value in _rows(cache)], "ll")
        for cache in (config.caches.values() if not config.implicit else [CacheConfig("NAME")])
    ]
    cluster = []
    if config.cluster is not None:
        unchecked = "" if _has_cluster() else " (not checked: coopshm[cluster] is not installed here)"
        cluster.append(Line(f"cluster    {', '.join(config.cluster) or 'empty'}{unchecked}"))
    session.print(document, *lines, *cluster, *(block for table in tables for block in (Line(""), table)))


def _without_password(cluster: Mapping[str, object]) -> dict[str, object]:
    """What is printed may be sent to others."""
    engine = cluster.get("engine")
    hidden = {"engine": re.sub(r"(://[^:@/]*):[^@/]*@", r"\1:***@", engine)} if isinstance(engine, str) else {}
    return {**cluster, **hidden}


def _all_mistakes(source: str | None, first: ConfigError) -> list[str]:
    """Return all there is to say about the file that `first` was raised for; that alone, if it cannot be read."""
    path = source or os.environ.get("COOPSHM_CONFIG") or "coopshm.toml"
    try:
        return mistakes(read_toml(path, path)) or [str(first)]
    except ConfigError:
        return [str(first)]


def _refuse(session: Session, source: str | None, wrong: list[str]) -> None:
    where = source or os.environ.get("COOPSHM_CONFIG") or "coopshm.toml"
    lines = [Line(f"{where} has {count(len(wrong), 'mistake', 'mistakes')}:", "bad")]
    session.print({"source": where, "errors": wrong}, *lines, *(Line(printable(text)) for text in wrong))
    sys.exit(1)


def _document(cache: CacheConfig) -> dict[str, object]:
    settings: dict[str, object] = {**cache._asdict(), "mode": f"{cache.mode:04o}"}
    del settings["name"]
    return settings


def _rows(cache: CacheConfig) -> Iterator[tuple[str, str]]:
    for name, value in _document(cache).items():
        if name == "memory_limit":
            yield name, f"{size(cache.memory_limit)} ({cache.memory_limit} bytes)"
        elif name == "version":
            yield name, "none" if value is None else version_text(value)
        elif isinstance(value, bool):
            yield name, "true" if value else "false"
        else:
            yield name, "none" if value is None else str(value)


COMMANDS = (_config,)
