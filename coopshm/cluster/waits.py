"""Waiting for an event, or for some time; and for tasks to end.

A task that is cancelled in the moment in which what it waits for happens may go on as if nothing had been said:
asyncio.wait_for does so before Python 3.12, and libraries have their own ways to. A loop around that would go on for
ever, and who waits for its end as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable

__all__ = ["end", "wait_some", "whole"]

#: Seconds after which a task that has not ended is told once more.
AGAIN_SECONDS = 0.05


async def wait_some(event: asyncio.Event, seconds: float) -> bool:
    """Return when the event is set, after so many seconds at the latest; whether it is. Leaves it as it is."""
    if event.is_set():
        return True
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    waiter = asyncio.ensure_future(event.wait())
    timer = loop.call_later(seconds, _set, over)
    try:
        await asyncio.wait((waiter, over), return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        waiter.cancel()
    return event.is_set()


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel these, and return when they have ended, however they did."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)


async def whole(what: Coroutine[None, None, None]) -> None:
    """Run it to its end, also if this task is cancelled meanwhile, however often; it ends as cancelled after that."""
    task = asyncio.ensure_future(what)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    task.result()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
