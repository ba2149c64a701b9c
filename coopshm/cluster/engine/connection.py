"""The connection with the engine: there, or lost; nothing in between.

    Link.run                 connect, and again when it is lost, less and less often; `up` and `down` tell the users
    Link.call, Link.command  a script or a command, in one of two lanes
    Link.tail                wait for messages of a log

A lane has one connection and sends what has come meanwhile together: while one batch is on its way the next one
gathers, so a thousand asks cost a few round trips, and a sidecar three connections or so. What is large has a lane of
its own, so that a reset or a lease does not wait behind it.

Whatever goes wrong (the connection ends, no answer comes in time, the server is somebody's replica now, or loads, or
refuses) ends all of it, at once: every call that waits gets LostError, and the host goes on by itself. A call that is
lost may have been carried out; all scripts bear being run again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias, cast

from redis.asyncio import RedisCluster
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError

from ..waits import end, whole
from . import scripts
from .address import Address, Client, Tls, connect, disconnect
from .scripts import Script

__all__ = ["BULK", "CONTROL", "FullError", "Link", "LostError", "Reply", "Told"]

logger = logging.getLogger("coopshm.cluster")

Reply: TypeAlias = "bytes | int | list[Reply] | None"
Word = bytes | memoryview | str | int
Lane = Literal["control", "bulk"]

CONTROL: Lane = "control"
BULK: Lane = "bulk"

#: What a lane sends together at most: calls, and bytes.
CALLS_MAX = 256
BYTES_MAX = 1024 * 1024

#: Seconds that a wait for messages lasts on the server.
TAIL_SECONDS = 1.0
TAIL_MESSAGES = 512

#: Seconds between attempts to connect: the first, and the longest. Each is shortened by chance, by up to a half, so
#: that a fleet does not come back in step.
RETRY_SECONDS = 0.1
RETRY_SECONDS_MAX = 5.0


class LostError(Exception):
    """The engine is not there, or not any more. What was asked of it may have happened."""


class _AgainError(Exception):
    """All of it is to begin anew."""


class FullError(Exception):
    """The engine has no memory left. Nothing has happened."""


class _Call(NamedTuple):
    script: Script | None
    words: tuple[Word, ...]
    size: int
    reply: asyncio.Future[Reply]


class Told(NamedTuple):
    """A message of a log (lua/common.lua)."""

    name: bytes
    message: bytes
    link: bytes  #: of the chain, that it hangs on


class Link:
    """The connection of one sidecar."""

    def __init__(
        self,
        address: Address,
        tls: Tls,
        timeout: float,
        bulk_timeout: float,
        tails: int,
        up: Callable[[], None],
        down: Callable[[], None],
    ) -> None:
        """
        Args:
            timeout: seconds to wait for an answer, before the engine is taken to be lost.
            bulk_timeout: seconds for answers to what is large.
            tails: how many logs are waited for at once.
            up, down: called when it is connected, and when it is lost.
        """
        self.up = False
        self.error = "not yet connected"
        self.losses = 0
        self._address = address
        self._tls = tls
        self._timeouts = {CONTROL: timeout, BULK: bulk_timeout}
        self._tails = tails
        self._tell_up = up
        self._tell_down = down
        self._clients: dict[str, Client] = {}
        self._queues: dict[Lane, deque[_Call]] = {CONTROL: deque(), BULK: deque()}
        self._waiting: dict[Lane, asyncio.Event] = {CONTROL: asyncio.Event(), BULK: asyncio.Event()}
        self._failed: asyncio.Future[Exception] | None = None
        self._clustered = address.kind == "cluster"

    # -- there, or not

    async def run(self) -> None:
        """Until cancelled."""
        pause = RETRY_SECONDS
        told = False
        try:
            while True:
                lanes: list[asyncio.Task[None]] = []
                lost = True
                try:
                    await self._open()
                    self._failed = asyncio.get_running_loop().create_future()
                    lanes = [asyncio.ensure_future(self._serve(lane)) for lane in (CONTROL, BULK)]
                    self.up, self.error = True, ""
                    if told or self.losses:
                        logger.info("connected with the engine %s", self._address)
                    pause, told = RETRY_SECONDS, False
                    self._tell_up()
                    raise await self._failed
                except _AgainError as exc:
                    lost, self.error = False, str(exc)
                    continue
                except (RedisError, OSError, asyncio.TimeoutError) as exc:
                    self.error = f"{type(exc).__name__}: {exc}".removesuffix(": ")
                    if not told:
                        told = True
                        what = "lost" if self.up else "not to be had"
                        logger.warning(
                            "the engine %s is %s (%s); this host goes on by itself until it is there again",
                            self._address, what, self.error,
                        )  # fmt: skip
                finally:
                    await whole(
                        self._close(lanes, lost)
                    )  # a connection that is not closed would stay until it is collected
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, RETRY_SECONDS_MAX)
        finally:
            self.error = "ended"

    async def _open(self) -> None:
        timeout = self._timeouts[CONTROL]
        tail_timeout = TAIL_SECONDS + timeout
        self._clients = {
            CONTROL: connect(self._address, self._tls, timeout, 1 if not self._clustered else 4),
            BULK: connect(self._address, self._tls, self._timeouts[BULK], 1 if not self._clustered else 4),
            "tail": connect(self._address, self._tls, tail_timeout, self._tails + 1),
        }
        for client in self._clients.values():
            # Also what shows a connection through which answers do not come, before anything is asked on it.
            await client.execute_command("PING")
        for name in scripts.__all__:
            script: Script = getattr(scripts, name)
            await self._clients[CONTROL].script_load(script.text)

    async def _close(self, lanes: Sequence[asyncio.Task[None]], lost: bool) -> None:
        was_up, self.up = self.up, False
        for queue in self._queues.values():
            while queue:
                _settle(queue.popleft().reply, LostError(self.error))
        if was_up:
            self.losses += lost
            self._tell_down()
        await end(lanes)
        clients, self._clients = self._clients, {}
        for client in clients.values():
            with contextlib.suppress(RedisError, OSError, asyncio.TimeoutError):
                await disconnect(client)

    def fail(self, exc: Exception) -> None:
        """The engine is lost, because of this."""
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(exc)
        self._down_now(exc)

    def again(self) -> None:
        """Let go of it and connect anew, at once: whatever is on its way is lost."""
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(_AgainError("begins anew"))

    def _down_now(self, exc: Exception) -> None:
        if self.up:
            self.error = f"{type(exc).__name__}: {exc}".removesuffix(": ")

    # -- what is asked of it

    def call(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Word], lane: Lane = CONTROL
    ) -> asyncio.Future[Reply]:
        """Run a script. The future has its reply, or raises LostError or FullError."""
        return self._submit(lane, script, (len(keys), *keys, *args))

    def command(self, *words: Word, lane: Lane = CONTROL) -> asyncio.Future[Reply]:
        """Run a command. As `call`."""
        return self._submit(lane, None, words)

    def _submit(self, lane: Lane, script: Script | None, words: tuple[Word, ...]) -> asyncio.Future[Reply]:
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if not self.up:
            reply.set_exception(LostError(self.error))
            return reply
        size = sum(len(word) if not isinstance(word, int) else 8 for word in words)
        self._queues[lane].append(_Call(script, words, size, reply))
        self._waiting[lane].set()
        return reply

    async def _serve(self, lane: Lane) -> None:
        queue, waiting = self._queues[lane], self._waiting[lane]
        while True:
            waiting.clear()
            if not queue:
                await waiting.wait()
            batch, size = [queue.popleft()], 0
            while queue and len(batch) < CALLS_MAX and size + queue[0].size < BYTES_MAX:
                size += queue[0].size
                batch.append(queue.popleft())
            try:
                await self._batch(lane, batch)
            except (RedisError, OSError, asyncio.TimeoutError) as exc:
                self.fail(exc)
                return
            finally:
                for call in batch:
                    _settle(call.reply, LostError(self.error))
                del batch, call  # who waits here holds no pins

    async def _batch(self, lane: Lane, batch: Sequence[_Call]) -> None:
        replies = await self._send(lane, [_words(call, known=True) for call in batch])
        unknown = [call for call, reply in zip(batch, replies, strict=True) if isinstance(reply, NoScriptError)]
        if unknown:
            again = iter(await self._send(lane, [_words(call, known=False) for call in unknown]))
            replies = [next(again) if isinstance(reply, NoScriptError) else reply for reply in replies]
        failed: Exception | None = None
        for call, reply in zip(batch, replies, strict=True):
            if isinstance(reply, OutOfMemoryError):
                _settle(call.reply, FullError(str(reply)))
            elif isinstance(reply, Exception):
                failed = reply
            elif not call.reply.done():
                call.reply.set_result(cast("Reply", reply))
        if failed is not None:
            raise failed

    async def _send(self, lane: Lane, batch: Sequence[tuple[Word, ...]]) -> list[object]:
        client = self._clients[lane]
        pipeline = client.pipeline(transaction=False)
        for words in batch:
            pipeline.execute_command(*words)
        # redis-py's own limit is for each answer; this one is for all of them.
        timer = asyncio.get_running_loop().call_later(2 * self._timeouts[lane], self.fail, TimeoutError("no answers"))
        try:
            return cast("list[object]", await pipeline.execute(raise_on_error=False))
        finally:
            timer.cancel()

    async def tail(self, log: bytes, after: str) -> list[Told]:
        """The messages of a log after that id; if there are none, wait for some, for a second.

        Raises:
            LostError
        """
        if not self.up:
            raise LostError(self.error)
        client = self._clients["tail"]
        words = ("XREAD", "COUNT", TAIL_MESSAGES, "BLOCK", int(TAIL_SECONDS * 1000), "STREAMS", log, after)
        try:
            if isinstance(client, RedisCluster):
                # Where its keys are in this command, redis-py would have to ask the server.
                node = client.get_node_from_key(log.decode())
                found = await client.execute_command(*words, target_nodes=node)
            else:
                found = await client.execute_command(*words)  # type: ignore[no-untyped-call]
        except (RedisError, OSError, asyncio.TimeoutError) as exc:
            self.fail(exc)
            raise LostError(self.error) from exc
        if not found:
            return []
        ((_, messages),) = found.items() if isinstance(found, dict) else found
        return [Told(name, fields.get(b"m", b""), fields.get(b"l", b"")) for name, fields in messages]


def _words(call: _Call, known: bool) -> tuple[Word, ...]:
    if call.script is None:
        return call.words
    return ("EVALSHA", call.script.sha, *call.words) if known else ("EVAL", call.script.text, *call.words)


def _settle(reply: asyncio.Future[Reply], exc: Exception) -> None:
    if not reply.done():
        reply.set_exception(exc)
        reply.exception()  # it may be that nobody asks for it
