"""The way of a hit, compiled from csrc/python/front.c, where the docstrings are."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from .limits import OnTimeout
from .values import NoCache

T = TypeVar("T")

class View:
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Front:
    def __init__(
        self,
        decode: Callable[[int, bytes], object],
        loads: Callable[[bytes], object] | None,
        keeps: int,
        size_max: int,
        /,
    ) -> None: ...
    def cached(
        self,
        key: object,
        fn: Callable[[], T | NoCache[T]],
        /,
        *,
        timeout: float | None = None,
        on_timeout: OnTimeout | None = None,
    ) -> T: ...
    def _hit(self, key: object, default: object, /) -> object: ...
    def _attach(self, addresses: tuple[int, ...], owner: object, /) -> None: ...
    def _enter(
        self, generation: int, tables: object, scalars: dict[object, object], others: dict[object, object], /
    ) -> None: ...
    def _settle(self) -> None: ...

def cached(
    name: str,
    key: object,
    fn: Callable[[], T | NoCache[T]],
    /,
    *,
    timeout: float | None = None,
    on_timeout: OnTimeout | None = None,
) -> T: ...
def bind(caches: Mapping[str, Front], open: Callable[[str], Front], decode_error: type[Exception], /) -> None: ...
def pin(addresses: tuple[int, ...], owner: object, key: bytes, /) -> tuple[int, int, View]: ...
def encode_key(key: object, /) -> bytes | None: ...

class Memo:
    def __init__(self, cache: str, function: str, arguments: int, /) -> None: ...
    def __call__(self, *args: object, **kwargs: object) -> object: ...
