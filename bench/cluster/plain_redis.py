"""What one would write by hand on Redis, in a worker: the plainest client, redis-py's."""

from __future__ import annotations

import importlib
from typing import Protocol

from ..procs import CLOCK

__all__ = ["connect", "lock_and_set", "set_and_get"]


class _Redis(Protocol):
    def set(self, key: str, value: bytes, *, nx: bool = False, px: int | None = None) -> object: ...
    def get(self, key: str) -> object: ...
    def delete(self, key: str) -> object: ...


_client: _Redis | None = None


def connect(url: str) -> None:
    global _client
    _client = importlib.import_module("redis").Redis.from_url(url)


def lock_and_set(key: str, size: int) -> float:
    """Return the µs that it takes to lock a key, to set its value, and to unlock it."""
    assert _client is not None
    value = bytes(size)
    before = CLOCK()
    _client.set(f"lock {key}", b"1", nx=True, px=10_000)
    _client.set(key, value)
    _client.delete(f"lock {key}")
    took = (CLOCK() - before) / 1000
    _client.delete(key)
    return took


def set_and_get(size: int, count: int) -> float:
    """Return the seconds that it takes to set so many values, and to get them back."""
    assert _client is not None
    value = bytes(size)
    before = CLOCK()
    for number in range(count):
        _client.set(f"value {number}", value)
    for number in range(count):
        _client.get(f"value {number}")
    took = (CLOCK() - before) / 1e9
    for number in range(count):
        _client.delete(f"value {number}")
    return took
