"""What clients have seen of each node, and what they must never see.

A value says when its computation began, before it read the source (`at`; all hosts of one machine share the clock).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.net.node import Node
from tests.procs import until
from tests.servers.client import Reply
from tests.servers.gate import WATCHDOG


@dataclass
class Seen:
    """One node's history."""

    node: Node
    replies: list[Reply] = field(default_factory=list)
    resets: list[Reply] = field(default_factory=list)  # made on this node
    applied: list[tuple[float, float]] = field(default_factory=list)  # a reset begun then was in force there by then

    def reset(self) -> Reply:
        """Reset on this node."""
        reply = self.node.reset()
        self.resets.append(reply)
        self.applied.append((reply.began, reply.ended))
        return reply

    def learns(self, counter: int, reset: Reply) -> None:
        """Wait until that many resets, of which this is the last, are in force on this node."""
        until(lambda: self.node.stamp()[0] >= counter, lambda: f"{self.node.name}: {self.node.standing()}")
        self.applied.append((reset.began, self.node.web.get("/pid").ended))

    def stale(self) -> list[tuple[Reply, float]]:
        """Replies to requests that were sent after a reset was in force there, with values of before it."""
        return [
            (reply, began)
            for reply in self.replies
            for began, ended in self.applied
            if reply.good and reply.began > ended and reply.body["at"] < began
        ]

    def failed(self) -> list[Reply]:
        return [reply for reply in self.replies if not reply.good]

    def goes_on(self, since: int, replies: int = 30) -> None:
        """Wait until there are so many more than the first `since`."""
        until(lambda: len(self.replies) >= since + replies, lambda: f"{self.node.name}: the load does not go on")


class Histories:
    """Of all nodes, while clients ask each of them for these keys, over and over."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.of = {node.name: Seen(node) for node in nodes}

    def __getitem__(self, node: Node) -> Seen:
        return self.of[node.name]

    def go_on(self) -> None:
        """Wait until the clients of each node have come some way."""
        marks = {name: len(seen.replies) for name, seen in self.of.items()}
        for name, seen in self.of.items():
            seen.goes_on(marks[name])

    def check(self) -> None:
        """No request failed, and nobody got a value of before a reset that was in force where it asked."""
        for name, seen in self.of.items():
            assert seen.replies, name
            assert seen.failed() == [], name
            assert seen.stale() == [], name


@contextmanager
def histories(nodes: Sequence[Node], keys: Sequence[str], clients: int = 1) -> Iterator[Histories]:
    """Has `clients` clients per node ask while the context lasts."""
    made = Histories(nodes)
    enough = threading.Event()

    def client(seen: Seen, number: int) -> None:
        turn = number
        while not enough.is_set():
            seen.replies.append(seen.node.web.get(f"/value/{keys[turn % len(keys)]}"))
            turn += 1

    crew = [
        threading.Thread(target=client, args=(seen, number)) for seen in made.of.values() for number in range(clients)
    ]
    for thread in crew:
        thread.start()
    try:
        yield made
    finally:
        enough.set()
        for thread in crew:
            thread.join(WATCHDOG)
            assert not thread.is_alive(), "a client hangs"
