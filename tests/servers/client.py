"""HTTP clients. Each request has a connection of its own, so that the kernel spreads them over the workers."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.servers.gate import WATCHDOG

#: How long a steady client rests between two requests, in seconds: it shall load the server, not the machine.
_PACE = 0.01

_numbers = itertools.count()


@dataclass(frozen=True)
class Reply:
    """A request and what came of it. Times are seconds on the monotonic clock, which the servers share."""

    request: str  # the number that the application records, too
    began: float  # before the connection was made
    ended: float  # when the last byte had come
    status: int  # 0: none came
    body: dict[str, Any]
    error: str = ""

    @property
    def good(self) -> bool:
        return self.status == 200


def ask(port: int, path: str, method: str = "GET") -> Reply:
    """One request. What goes wrong is in the reply."""
    request = str(next(_numbers))
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WATCHDOG)
    try:
        connection.request(method, f"{path}?{request}", headers={"Connection": "close"})
        response = connection.getresponse()
        data = response.read()
        ended = time.monotonic()
        if response.status != 200:
            return Reply(request, began, ended, response.status, {}, data.decode(errors="replace"))
        return Reply(request, began, ended, 200, json.loads(data))
    except (OSError, http.client.HTTPException) as exc:
        return Reply(request, began, time.monotonic(), 0, {}, repr(exc))
    finally:
        connection.close()


class Crowd:
    """Clients that each wait for one reply, all at the same time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._pool = ThreadPoolExecutor(256)
        self._futures: list[Future[Reply]] = []

    def ask(self, path: str, clients: int = 1) -> None:
        """Have more clients ask; returns at once."""
        self._futures += [self._pool.submit(ask, self._port, path) for _ in range(clients)]

    def __len__(self) -> int:
        return len(self._futures)

    def done(self) -> int:
        """How many have their reply."""
        return sum(future.done() for future in self._futures)

    def replies(self) -> list[Reply]:
        """Every client's reply; waits for them."""
        try:
            return [future.result(WATCHDOG) for future in self._futures]
        finally:
            self._pool.shutdown(wait=False)


class Load:
    """What steady clients have seen so far."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.enough = threading.Event()

    def since(self, earlier: Reply) -> list[Reply]:
        """What came of the requests that were sent after this reply had come."""
        return [reply for reply in list(self.replies) if reply.began > earlier.ended]

    def answered(self, paths: Sequence[str], earlier: Reply | None = None) -> bool:
        """Whether there is a good reply for each path, to a request that was sent after `earlier` had come."""
        replies = self.since(earlier) if earlier else list(self.replies)
        found = {f"/value/{reply.body['cache']}/{reply.body['key']}" for reply in replies if reply.good}
        return found >= set(paths)

    def tell(self) -> str:
        """What has come so far, for people."""
        replies = list(self.replies)
        bad = [reply for reply in replies if not reply.good]
        return f"{len(replies)} replies, {len(bad)} bad; last {replies[-1:]}, bad {bad[:3]}"


@contextmanager
def load(port: int, paths: Sequence[str], clients: int = 4) -> Iterator[Load]:
    """Has clients ask for one path after another for as long as the context lasts."""
    seen = Load()

    def client(number: int) -> None:
        for turn in itertools.count(number):
            if seen.enough.wait(_PACE):
                return
            seen.replies.append(ask(port, paths[turn % len(paths)]))

    crew = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in crew:
        thread.start()
    try:
        yield seen
    finally:
        seen.enough.set()
        for thread in crew:
            thread.join(WATCHDOG)
            assert not thread.is_alive(), "a client hangs"
