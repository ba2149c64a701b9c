"""The application that each host runs.

GET  /value/KEY   the value, cached; its computation says when and where it began (and may be held: see source.py)
GET  /peek/KEY    the value if the cache has it
POST /reset       reset; its version
GET  /standing    where the cache stands: stamp, nodes, sidecar
GET  /sound       what is wrong in the segment, and the statistics
GET  /pid
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

import coopshm
from coopshm.resets import nodes_of
from tests.servers.app import source

CACHE = "pages"
NODE = os.environ["NET_NODE"]

cache = coopshm.open(CACHE)


def compute(key: str) -> dict[str, Any]:
    at = time.monotonic()  # before the source is read
    value = {**source.begin(CACHE, key), "at": at, "node": NODE}
    if source.is_held(key):
        with socket.socket() as gate:
            gate.connect(source.GATE)
            gate.sendall(source.announce(value))
            gate.recv(1)
    return value


def standing() -> dict[str, Any]:
    segment = cache._attachment.segment
    stamp = segment.stamp()
    return {
        "stamp": [stamp.counter, stamp.version.decode(), stamp.origin],
        "generation": stamp.generation,
        "sidecar": segment.sidecar(),
        "nodes": {node.name: node.state for node in nodes_of(segment)},
    }


def sound() -> dict[str, Any]:
    stats = cache.stats()
    return {
        "damage": cache.verify(),
        "left": [stats.flights, stats.waiters, stats.pinned_chunks],
        "bypasses": dict(stats.bypasses),
        "entries": stats.entries,
    }


def answer(method: str, path: str) -> dict[str, Any]:
    match [method, *path.strip("/").split("/")]:
        case ["GET", "value", key]:
            return cache.cached(key, lambda: compute(key))
        case ["GET", "peek", key]:
            return {"value": cache.get(key)}
        case ["POST", "reset"]:
            return {"version": cache.reset()}
        case ["GET", "standing"]:
            return standing()
        case ["GET", "sound"]:
            return sound()
        case ["GET", "pid"]:
            return {"served": os.getpid()}
    raise LookupError(f"{method} {path}")


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = json.dumps(answer(environ["REQUEST_METHOD"], environ["PATH_INFO"])).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
