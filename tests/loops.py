"""Event loops for tests: asyncio's own and uvloop's. A test module that imports `loop` runs each test on both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from tests.procs import WATCHDOG

RUN: dict[str, Callable[[Coroutine[Any, Any, Any]], Any]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}
_loop = "asyncio"  # which of them this process uses


@pytest.fixture(autouse=True, params=RUN)
def loop(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test runs on each kind of event loop."""
    global _loop
    _loop = request.param
    yield _loop
    _loop = "asyncio"


def go(main: Callable[[], Coroutine[Any, Any, Any]], loop: str = "") -> Any:
    async def watched() -> Any:
        return await asyncio.wait_for(main(), WATCHDOG)

    return RUN[loop or _loop](watched())


async def until(condition: Callable[[], object]) -> None:
    """Return once the condition holds."""
    while not condition():
        await asyncio.sleep(0.001)
