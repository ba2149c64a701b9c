"""What the clients do: everything cold, everything warm, then resets under load."""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

from demo import source
from demo.client import Connection, Reply

CONNECTIONS = 64
RESETS = 5
PAUSE = 0.05  # seconds a client rests between two requests, except in the cold rush
RESET_PATIENCE = 4.0  # seconds until the next reset, should not all pages have been served anew before


@dataclass(frozen=True)
class Reset:
    """A reset to `release`: every request sent after `ended` must show that release or a later one."""

    release: int
    began: float
    ended: float


@dataclass(frozen=True)
class Observation:
    """All that the clients saw in one run."""

    cold: list[Reply]
    warm: list[Reply]
    resetting: list[Reply]
    resets: list[Reset]

    def replies(self) -> Iterator[Reply]:
        yield from self.cold
        yield from self.warm
        yield from self.resetting


async def run(port: int) -> Observation:
    """Plays the whole scenario against the server at `port`."""
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(Connection(port)) for _ in range(CONNECTIONS)]
        cold = await _everything(connections, pause=0)
        warm = await _everything(connections, pause=PAUSE)
        resetting, resets = await _reset_under_load(connections, port)
    return Observation(cold, warm, resetting, resets)


def _order(client: int, turn: int) -> list[str]:
    """All pages in an order of this client's own, the same in each run."""
    return random.Random(1000 * turn + client).sample(source.MODULES, len(source.MODULES))


async def _everything(connections: list[Connection], pause: float) -> list[Reply]:
    """Each client asks once for each page."""

    async def client(number: int) -> list[Reply]:
        await asyncio.sleep(pause * number / CONNECTIONS)
        replies = []
        for page in _order(number, turn=0):
            replies.append(await connections[number].get(page))
            await asyncio.sleep(pause)
        return replies

    served = await asyncio.gather(*(client(number) for number in range(CONNECTIONS)))
    return [reply for replies in served for reply in replies]


async def _reset_under_load(connections: list[Connection], port: int) -> tuple[list[Reply], list[Reset]]:
    """Each client asks for page after page, until all resets have been made."""
    replies: list[Reply] = []
    resets: list[Reset] = []
    shown: set[str] = set()  # pages served in the newest release
    done = asyncio.Event()

    async def client(number: int) -> None:
        await asyncio.sleep(PAUSE * number / CONNECTIONS)
        turn = 1
        while not done.is_set():
            for page in _order(number, turn):
                reply = await connections[number].get(page)
                replies.append(reply)
                if resets and reply.release == resets[-1].release:
                    shown.add(page)
                await asyncio.sleep(PAUSE)
                if done.is_set():
                    break
            turn += 1

    async def resetter() -> None:
        async with Connection(port) as connection:
            for _ in range(RESETS):
                began = time.monotonic()
                await connection.post("/reset")
                ended = time.monotonic()
                shown.clear()
                resets.append(Reset(source.release(), began, ended))
                while len(shown) < len(source.MODULES) and time.monotonic() < ended + RESET_PATIENCE:
                    await asyncio.sleep(PAUSE)
        done.set()

    await asyncio.gather(resetter(), *(client(number) for number in range(CONNECTIONS)))
    return replies, resets
