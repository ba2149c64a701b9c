"""What the example applications have in common: products, in files that stand for a database that takes its time.

A product has NUMBER.json and NUMBER.svg; currency.json says how prices are shown. $SHOP_DATA names another directory.
Nothing here knows of coopshm.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("SHOP_DATA", Path(__file__).parent / "data"))


class UnknownProductError(LookupError):
    """There is no such product."""


def product(number: int) -> dict[str, Any]:
    """Read a product, with its price as text."""
    found = json.loads(_read(f"{number}.json"))
    return {**found, "price": _currency.format(found["price"])}


def page(number: int) -> str:
    """Render the page of a product."""
    found = product(number)
    return f"<!doctype html><title>{found['name']}</title><p>{found['name']}: {found['price']}"


def picture(number: int) -> bytes:
    return _read(f"{number}.svg")


def reload(_version: object = None) -> None:
    """What a process has to do when there is new data, before it computes anything from it.

    It reads what it keeps itself: how prices are shown. Nobody else writes that, so no computation that is late can put
    the old one back, as it could with a functools.lru_cache that is cleared here.
    """
    global _currency
    _currency = json.loads(_read("currency.json"))["format"]


def _read(name: str) -> bytes:
    try:
        return (DATA / name).read_bytes()
    except FileNotFoundError:
        raise UnknownProductError(name) from None


_currency = ""
reload()
