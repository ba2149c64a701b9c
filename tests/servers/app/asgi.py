"""The application for ASGI servers."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from release import CODE  # the code that is deployed: in the test's directory

import coopshm
from tests.servers.app import source

source.record("imports", code=CODE)


async def compute(cache: str, key: str) -> dict[str, Any]:
    value = source.begin(cache, key)
    if source.is_stuck(key):
        source.wait_stuck(value)
    elif source.is_held(key):
        reader, writer = await asyncio.open_connection(*source.GATE)
        writer.write(source.announce(value))
        await reader.read(1)
        writer.close()
    return value


async def answer(method: str, path: str, query: str) -> dict[str, Any]:
    me = {"served": os.getpid(), "code": CODE}
    match [method, *path.strip("/").split("/")]:
        case ["GET", "value", cache, key]:
            source.record("asks", cache=cache, key=key, request=query)
            return {**await coopshm.acached(cache, key, lambda: compute(cache, key)), **me}
        case ["POST", "reset", cache]:
            version = await asyncio.get_running_loop().run_in_executor(None, coopshm.reset, cache)
            return {"version": version, **me}
        case ["GET", "pid"]:
            return me
    raise LookupError(f"{method} {path}")


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    reply = await answer(scope["method"], scope["path"], scope["query_string"].decode())
    body = json.dumps(reply).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
