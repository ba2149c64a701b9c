"""A shop, as a WSGI application: three caches that are used in different ways. Its requests are in `PATHS`.

pages    rendered pages: small, some take long to compute, all are read often
models   a few large values that are read without a copy, and held for as long as a request needs them
prices   more than find room: the cache is full, and answers without storing
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import coopshm

CONFIG = """
namespace = "{namespace}"
[caches.pages]
memory_limit = "8 MiB"
version = "2026-11-20"
[caches.models]
memory_limit = "64 MiB"
[caches.prices]
memory_limit = "256 KiB"
"""


def paths(seed: int) -> Iterator[str]:
    """What a visitor asks for, one after the other; some products are in demand."""
    chance = random.Random(seed)
    while True:
        kind = chance.random()
        if kind < 0.75:
            yield f"/pages/{int(chance.paretovariate(0.6)) % 5000}"
        elif kind < 0.9:
            yield f"/models/{chance.randrange(60)}"
        else:
            yield f"/prices/{chance.randrange(3000)}"


def slow(text: str, seconds: float, size: int) -> bytes:
    """Compute: so long, and so many bytes, each the same for the same text."""
    chance = random.Random(hashlib.sha256(text.encode()).digest())
    time.sleep(chance.random() ** 8 * seconds)
    return bytes(int(size * (0.5 + chance.random())))


def page(number: str) -> bytes:
    key = ("product", int(number), "en")
    body = coopshm.cached("pages", key, lambda: slow(f"page {number}", 4.0, 6000))
    view = coopshm.open("pages").view(key) if int(number) % 5 == 0 else None
    if view is not None:
        time.sleep(0.1)  # a slow client; the page is not copied for it
    return body


def model(number: str) -> bytes:
    key = ("region", int(number))
    coopshm.cached("models", key, lambda: slow(f"model {number}", 2.0, 700_000))
    view = coopshm.open("models").view(key)
    time.sleep(0.02)  # at work with it
    return b"" if view is None else bytes(view[:100])


def price(number: str) -> bytes:
    return coopshm.cached("prices", f"sku-{number}", lambda: slow(f"price {number}", 0.01, 400))


def reset(version: str) -> bytes:
    return str(coopshm.reset("pages", version=version)).encode()


PAGES: dict[str, Callable[[str], bytes]] = {"pages": page, "models": model, "prices": price, "reset": reset}


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    kind, _, number = environ["PATH_INFO"].strip("/").partition("/")
    body = PAGES[kind](number)
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(body)))])
    return [body]
