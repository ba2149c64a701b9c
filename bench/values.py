"""The values that hits are asked for, and the keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from .common import MIB, Bench

__all__ = ["DICT", "KEYS", "KIB", "VALUES", "Value", "without_numpy"]

KIB: Final = b"x" * 1024
DICT: Final = {"id": 42, "name": "product 42", "price": 52.5, "tags": ["new", "sale"]}


class Value(NamedTuple):
    make: Callable[[], object]
    n_bytes: int = 0  # about; 0: few


def _rows() -> list[dict[str, object]]:
    """200 rows as a small query returns them."""
    return [
        {"id": n, "name": f"product {n}", "price": n * 1.25, "stock": n % 17, "tags": ["new", "sale"]}
        for n in range(200)
    ]


def _ndarray(n_bytes: int) -> object:
    import numpy

    return numpy.arange(n_bytes // 8, dtype="int64")


#: What a hit returns.
VALUES: Final[dict[str, Value]] = {
    "int": Value(lambda: 123456789),
    "str, 20 characters": Value(lambda: "twenty characters ok"),
    "bytes, 1 KiB": Value(lambda: KIB, len(KIB)),
    "dict, 4 items": Value(lambda: DICT),
    "list of 200 dicts": Value(_rows),
    "bytes, 1 MiB": Value(lambda: b"x" * MIB, MIB),
    "ndarray, 1 MiB": Value(lambda: _ndarray(MIB), MIB),
    "ndarray, 100 MiB": Value(lambda: _ndarray(100 * MIB), 100 * MIB),
}

KEYS: Final[dict[str, object]] = {
    "str": "product:42",
    "int": 42,
    "tuple of str and int": ("product", 42),
    "tuple of 4": ("product", 42, "de", True),
}


def without_numpy(bench: Bench) -> bool:
    """Is numpy missing? Then a note says so."""
    try:
        import numpy  # noqa: F401
    except ImportError:
        bench.note("left out, since numpy is not installed: ndarrays")
        return True
    return False
