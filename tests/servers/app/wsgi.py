"""The application for WSGI servers."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

from release import CODE  # the code that is deployed: in the test's directory

import coopshm
from tests.servers.app import source

source.record("imports", code=CODE)


def compute(cache: str, key: str) -> dict[str, Any]:
    value = source.begin(cache, key)
    if source.is_stuck(key):
        source.wait_stuck(value)
    elif source.is_held(key):
        with socket.socket() as gate:
            gate.connect(source.GATE)
            gate.sendall(source.announce(value))
            gate.recv(1)
    return value


def answer(method: str, path: str, query: str) -> dict[str, Any]:
    me = {"served": os.getpid(), "code": CODE}
    match [method, *path.strip("/").split("/")]:
        case ["GET", "value", cache, key]:
            source.record("asks", cache=cache, key=key, request=query)
            return {**coopshm.cached(cache, key, lambda: compute(cache, key)), **me}
        case ["POST", "reset", cache]:
            return {"version": coopshm.reset(cache), **me}
        case ["GET", "pid"]:
            return me
    raise LookupError(f"{method} {path}")


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    reply = answer(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
    body = json.dumps(reply).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
