"""Event loops for tests: each test has its own, and a watchdog."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.procs import WATCHDOG

T = TypeVar("T")


def run(what: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own. What it leaves running is cancelled, and no task may have ended with an
    error that nobody has looked at."""
    errors: list[dict[str, Any]] = []

    async def main() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
        return await asyncio.wait_for(what, WATCHDOG)

    result = asyncio.run(main())
    assert errors == []
    return result
