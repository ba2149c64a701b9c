"""What `manage.py check` says about the configuration, beyond what makes it an error at once (see apps.py)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

from ...config import Config, load, resolve_callable, resolve_object
from ...errors import ConfigError, shorten

__all__ = ["check"]


def check(app_configs: Sequence[object] | None, **_: object) -> list[CheckMessage]:
    """The system check."""
    config = load(getattr(settings, "COOPSHM", None))
    return [*_references(config), *_namespace(config), *_room(config)]


def _references(config: Config) -> list[CheckMessage]:
    """coopshm imports what they name when it is needed: for a callback, at the first reset."""
    found = []
    for cache in config.caches.values():
        try:
            if cache.on_reset is not None:
                resolve_callable(cache.on_reset, f"caches.{cache.name}.on_reset")
            if isinstance(cache.serializer, str) and ":" in cache.serializer:
                resolve_object(cache.serializer, f"caches.{cache.name}.serializer")
        except ConfigError as exc:
            found.append(Error(f"COOPSHM: {exc}", id="coopshm.E001"))
    return found


def _namespace(config: Config) -> list[CheckMessage]:
    if config.namespace != "default":
        return []
    text = "COOPSHM has no namespace: all projects of this host and user that have none share their caches."
    return [Warning(text, hint='Add "namespace" to COOPSHM, or set $COOPSHM_NAMESPACE.', id="coopshm.W001")]


def _room(config: Config) -> list[CheckMessage]:
    try:
        shm = os.statvfs("/dev/shm")
    except OSError as exc:
        return [Error(f"/dev/shm, where the caches are, cannot be used: {shorten(exc)}", id="coopshm.E002")]
    wanted, size = sum(cache.memory_limit for cache in config.caches.values()), shm.f_blocks * shm.f_frsize
    if wanted <= size:
        return []
    mib = 1024 * 1024
    text = f"The caches may take {wanted // mib} MiB, and /dev/shm has {size // mib} MiB: they will be full before."
    return [
        Warning(text, hint="Enlarge /dev/shm (in a container: --shm-size), or lower memory_limit.", id="coopshm.W002")
    ]
