"""coopshm: a shared-memory, compute-once cache for prefork Python servers.

    import coopshm

    coopshm.configure("coopshm.toml")  # or a mapping; or $COOPSHM_CONFIG; or ./coopshm.toml; or nothing
    page = coopshm.cached("pages", ("product", 42), lambda: render(42))
    coopshm.reset("pages")

All worker processes of a host share one segment per cache. `fn` runs once per key however many ask; a hit takes no
lock; after `reset` returns, no call returns what was computed before.

A map of the package, each module importing only from those above it:

    errors      the tree of exceptions            versions   versions as canonical JSON
    limits      how long a call waits             config     settings, checked
    keys        keys as bytes
    arrays      NumPy arrays as bytes             failures   exceptions as bytes
    values      values as bytes
    _codes      what the core (csrc/) says, in words: these three alone import it
    _segment    one attached segment            _open      attaching to one
    _describe   what there is to see of it
    forks       what a forked child must not inherit
    hot         what a process keeps of a generation
    _front      the way of a hit, in C (csrc/python/)
    stats       what the processes have counted     events   what is logged
    attachment  which segment and generation this process is in: hooks, reset
    others      caches of this host that this process does not use itself
    store       a cache without the computing   once       the compute-once loop, as steps
    cache       a cache, in threads             sharing    one loop for many tasks or greenlets
    aio         the same for asyncio            greenlets  waiting, under gevent
    decorators  memoize                         observe    attaching from outside, to look on
    rates       how fast counters grow
    status/     looking again and again: a page for people
    metrics     the same for Prometheus (imports its client: coopshm[metrics])
    admin/      the command line                integrations/  for Flask and Django
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar, overload

from . import config as _config
from ._front import bind, cached
from .cache import Cache, NoCache
from .decorators import Memoized, memoize
from .errors import (
    BusyError,
    ComputeError,
    ConfigError,
    CoopshmError,
    CorruptError,
    CycleError,
    DecodeError,
    EncodeError,
    InvalidKeyError,
    LayoutError,
    NoSpaceError,
    OwnershipError,
    ResetError,
    SegmentError,
    UnknownCacheError,
    WaitTimeout,
)
from .forks import PerProcess
from .limits import OnTimeout
from .resets import NodeReset, ResetReport
from .stats import Histogram, Stats

__all__ = [
    "BusyError",
    "Cache",
    "ComputeError",
    "ConfigError",
    "CoopshmError",
    "CorruptError",
    "CycleError",
    "DecodeError",
    "EncodeError",
    "Histogram",
    "InvalidKeyError",
    "LayoutError",
    "Memoized",
    "NoCache",
    "NoSpaceError",
    "NodeReset",
    "OwnershipError",
    "ResetError",
    "ResetReport",
    "SegmentError",
    "Stats",
    "UnknownCacheError",
    "WaitTimeout",
    "acached",
    "cached",
    "configure",
    "memoize",
    "on_reset",
    "open",
    "reset",
    "stats",
    "version",
]

T = TypeVar("T")

logging.getLogger("coopshm").addHandler(logging.NullHandler())

_lock = PerProcess(lambda: threading.RLock())
_configured: _config.Config | None = None
_caches: dict[str, Cache] = {}


def configure(source: Mapping[str, object] | str | os.PathLike[str] | None = None) -> None:
    """Load the configuration of all caches; the first use of a cache does it when nobody has.

    Args:
        source: a mapping, or the path of a TOML file. None: the file that $COOPSHM_CONFIG names, else ./coopshm.toml
            if it exists, else the defaults: any name is a cache of 64 MiB. $COOPSHM_NAMESPACE overrides the namespace
            in each case.

    Cache objects made before keep the settings they were opened with; the functions of this module use the new ones.

    Raises:
        ConfigError: naming the source, the key, the value and what is allowed; or the file cannot be read.
    """
    global _configured
    loaded = _config.load(source)
    with _lock():
        _configured = loaded
        _caches.clear()


def open(name: str) -> Cache:
    """Return the cache `name`, attached to its segment. One object per process and name.

    Raises:
        UnknownCacheError: the configuration does not have it.
        ConfigError: the configuration is wrong, or `name` cannot be a name.
        SegmentError: the segment cannot be had; its subclasses tell why.
    """
    global _configured
    cache = _caches.get(name)
    if cache is not None:
        return cache
    with _lock():
        cache = _caches.get(name)
        if cache is None:
            if _configured is None:
                _configured = _config.load()
            cache = _caches[name] = Cache(_configured.namespace, _configured.cache(name))
        return cache


bind(_caches, open, DecodeError)


async def acached(
    name: str,
    key: object,
    fn: Callable[[], Awaitable[T | NoCache[T]]],
    *,
    timeout: float | None = None,
    on_timeout: OnTimeout | None = None,
) -> T:
    """Return the value of `key` in cache `name`, awaiting `fn()` to compute it if no process has.

    See `Cache.acached` for arguments, result and errors, and `open` for the errors of the first use, which is short but
    not asynchronous: a server that minds opens its caches at its start.
    """
    cache = _caches.get(name)
    return await (cache or open(name)).acached(key, fn, timeout=timeout, on_timeout=on_timeout)


@overload
def reset(name: str, version: object = None, wait: None = None) -> object: ...
@overload
def reset(name: str, version: object = None, *, wait: float) -> ResetReport: ...
def reset(name: str, version: object = None, wait: float | None = None) -> object:
    """Invalidate cache `name` as a whole, on this host and in its cluster. See `Cache.reset`."""
    return open(name).reset(version) if wait is None else open(name).reset(version, wait=wait)


def version(name: str) -> object:
    """Return the version of the source that cache `name` holds values of."""
    return open(name).version()


def on_reset(name: str, hook: Callable[[object], object]) -> None:
    """Have `hook(version)` called in this process after each reset of cache `name`. See `Cache.on_reset`.

    Opens the cache, since the process must know from which generation on it has to tell. So configure first.
    """
    open(name).on_reset(hook)


def stats(name: str) -> Stats:
    """Return what all processes of cache `name` have counted. See `Stats`."""
    return open(name).stats()
