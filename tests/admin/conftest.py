"""Fixtures: the command in a namespace of its own, processes that use its cache, a configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coopshm
from tests.admin.command import Admin
from tests.procs import Child


@pytest.fixture
def admin(namespace: str, tmp_path: Path) -> Admin:
    return Admin(namespace, tmp_path)


def use_cache(conn: Any, settings: Any, entries: list[tuple[Any, Any]]) -> str:
    """A process that uses the cache: stores the entries, and stays until it is told to end."""
    coopshm.configure(settings)
    cache = coopshm.open("c")
    for key, value in entries:
        cache.cached(key, lambda value=value: value)
    conn.send((cache.stats().entries, cache.stats().generation))
    conn.recv()
    return "ended"


@pytest.fixture
def use(settings: Callable[..., Any]) -> Callable[..., Child]:
    """Starts a process that uses cache `c`, and returns it when it has stored its entries."""

    def start(entries: list[tuple[Any, Any]], **options: Any) -> Child:
        child = Child(use_cache, settings(**options), entries)
        assert child.receive()[0] == len(entries)
        return child

    return start


@pytest.fixture
def configured(admin: Admin) -> Path:
    """A configuration in the current directory, whose settings are not those of the segment."""
    (admin.directory / "shop.py").write_text(
        "import coopshm, pathlib\n"
        "print('imported')\n"
        "def reload(version):\n"
        "    print('reloading')\n"
        "    if version == 'broken': raise FileNotFoundError('no such source')\n"
        "    if version == 'exit': raise SystemExit(0)\n"
        "    namespace = coopshm.open('d')._attachment.namespace if version == 'look' else ''\n"
        "    pathlib.Path('seen').write_text(repr((version, namespace)))\n"
    )
    path = admin.directory / "coopshm.toml"
    path.write_text(
        "namespace = 'elsewhere'\n[caches.d]\n"
        "[caches.c]\nmemory_limit = '1 MiB'\nversion = 5\nlifetime = 'host'\non_reset = 'shop:reload'\n"
    )
    return path
