"""What users would pick instead, each behind the same small protocol, measured in the same rounds.

    protocol      Place, Client, Peer: what an adapter consists of
    server        servers on unix sockets, started for a run and ended with it

    prepared      what could not be installed, and why

    lru           functools.lru_cache: in the process, the bound from below
    ours          coopshm, by the same protocol
    warp          warp_cache with its shared backend
    uwsgi         uWSGI's cache, inside a real uWSGI
    pylmdb        py-lmdb on /dev/shm
    disk          diskcache on /dev/shm, alone and with its lock
    redisd        Redis on a unix socket; dogpile.cache with the Redis lock
    memcache      memcached on a unix socket, by pylibmc
    ultradict     UltraDict
    manager       multiprocessing.Manager().dict

A peer that cannot be had here, or fails, is named in the notes of each result it is missing from, with the
reason; the question goes on without it.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..common import Bench
from . import disk, lru, manager, memcache, ours, pylmdb, redisd, ultradict, uwsgi, warp
from .prepared import NOT_INSTALLED
from .protocol import Peer, Place, Running

__all__ = ["LOCKING", "LRU", "OURS", "PEERS", "UWSGI", "attempt", "describe", "started", "why_not"]

LRU = lru.PEER
UWSGI = uwsgi.PEER
OURS = ours.PEERS

#: All of them, in the order of the tables.
PEERS: tuple[Peer, ...] = (
    warp.PEER,
    uwsgi.PEER,
    pylmdb.PEER,
    disk.PEER,
    redisd.PEER,
    memcache.PEER,
    ultradict.PEER,
    manager.PEER,
)

#: Those that compute a key once for several processes, by a lock that they poll.
LOCKING: tuple[Peer, ...] = (redisd.DOGPILE, redisd.DOGPILE_MS, disk.LOCKED)


def why_not(peer: Peer) -> str | None:
    """Return why `peer` cannot be measured here, None if it can."""
    missing = [module for module in peer.modules if not _found(module)]
    missing += [name for name in peer.programs if not (shutil.which(name) or (name == "uwsgi" and uwsgi.program()))]
    if not missing:
        return None
    reasons = json.loads(NOT_INSTALLED.read_text()) if NOT_INSTALLED.exists() else {}
    return "; ".join(f"{name} is not installed ({reasons.get(name, 'see `make bench`')})" for name in missing)


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent package
        return False


@contextmanager
def started(bench: Bench, peers: Sequence[Peer], **needs: int) -> Iterator[dict[Peer, Running]]:
    """Start `peers`, all but those that cannot be had: each of these gets a note. `needs` is what Place says."""
    with ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(
            prefix=f"coopshm-{bench.namespace}-", dir="/dev/shm", ignore_cleanup_errors=True
        )
        place = Place(Path(stack.enter_context(folder)), bench.namespace, **needs)
        running: dict[Peer, Running] = {}
        for peer in peers:
            if not bench.peers and peer not in (*OURS, LRU):
                bench.note(f"left out, by --no-peers: {peer.name}")
                continue
            reason = why_not(peer)
            if reason is None:
                try:
                    running[peer] = stack.enter_context(peer.start(place))
                except Exception as exc:  # noqa: BLE001 a failing peer ends nothing but itself
                    reason = describe(exc)
            if reason is not None:
                bench.note(f"left out: {peer.name}: {reason}")
        yield running


def attempt(bench: Bench, peer: Peer, what: str, action: Callable[[], object]) -> bool:
    """Do it; if it fails, a note names the peer. What fails of coopshm itself is an error."""
    try:
        action()
    except Exception as exc:
        if peer in OURS:
            raise
        bench.note(f"left out: {peer.name}, {what}: {describe(exc)}")
        return False
    return True


def describe(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[-1] if lines else 'no word about it'}"
