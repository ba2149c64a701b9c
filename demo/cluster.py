"""`python -m demo.cluster`: three nodes, each with gunicorn and a sidecar, and what their clients see. The sidecars are
connected with each other, or all with a Redis or Valkey server (--engine).

cold     the clients of all nodes ask for all pages at once: each is rendered once in the cluster
warm     they ask again: nothing is rendered
reset    on one node, under load: it reaches the others, and each page is rendered once again
lost     a node is killed, with all its memory, under load: the others go on; a reset meanwhile
back     it starts anew, empty: it gets the release and all pages from the others, and renders none
"""

import argparse
import asyncio
import random
import secrets
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from demo import source
from demo.client import Connection, Reply
from demo.engine import Engine
from demo.ground import Ground, enter
from demo.gunicorn_conf import workers
from demo.nodes import PORT, Node, NodeError, by_engine, direct, until

NODES = 3
CLIENTS = 12  # of each node
PAUSE = 0.02  # seconds a client rests between two requests under load


@dataclass
class Phase:
    """What a phase came to, per node: requests, renderings by release."""

    replies: dict[str, list[Reply]] = field(default_factory=dict)
    rendered: dict[str, Counter[int]] = field(default_factory=dict)

    def repeated(self, release: int) -> int:
        """Renderings of a release beyond one a page."""
        return max(0, sum(counts[release] for counts in self.rendered.values()) - len(source.MODULES))


@dataclass
class Story:
    """All that was seen."""

    phases: dict[str, Phase] = field(default_factory=dict)
    reset_seconds: float = 0.0
    back_seconds: float = 0.0

    def older(self) -> int:
        """Replies older than one that the same node had given before they were asked for."""
        older = 0
        for name in self.phases["cold"].replies:
            replies = [reply for phase in self.phases.values() for reply in phase.replies[name]]
            events = [(reply.ended, 0, reply) for reply in replies] + [(reply.began, 1, reply) for reply in replies]
            newest = 0
            for _, begins, reply in sorted(events, key=lambda event: event[:2]):
                if begins:
                    older += reply.release < newest
                else:
                    newest = max(newest, reply.release)
        return older

    def broken(self) -> list[str]:
        """The promises that did not hold, in words."""
        last = {"cold": 1, "warm": 1, "reset": 2, "lost": 3, "back": 3}
        found = [
            f"{phase.repeated(last[name])} pages were rendered again ({name})"
            for name, phase in self.phases.items()
            if phase.repeated(last[name])
        ]
        needless = {
            name: sum(sum(c.values()) for c in self.phases[name].rendered.values()) for name in ("warm", "back")
        }
        found += [f"{count} pages were rendered that were there ({name})" for name, count in needless.items() if count]
        if self.older():
            found.append(f"{self.older()} replies were older than one before")
        return found


class Observer:
    """Plays the story. A request that fails ends it, with its error."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.story = Story()

    @contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        print(f"{name} ", end="", flush=True)
        before = {node.name: len(node.computations()) for node in self.nodes}
        phase = self.story.phases[name] = Phase({node.name: [] for node in self.nodes})
        yield phase
        for node in self.nodes:
            phase.rendered[node.name] = Counter(c.release for c in node.computations()[before[node.name] :])

    async def everything(self, phase: Phase, nodes: Iterable[Node]) -> None:
        """Each client of these nodes asks once for each page, in an order of its own."""

        async def client(node: Node, number: int) -> None:
            async with Connection(PORT, node.address) as connection:
                for page in random.Random(f"{node.name} {number}").sample(source.MODULES, len(source.MODULES)):
                    phase.replies[node.name].append(await connection.get(page))

        await asyncio.gather(*(client(node, number) for node in nodes for number in range(CLIENTS)))

    async def load(self, phase: Phase, nodes: Iterable[Node], enough: asyncio.Event) -> None:
        """Clients of these nodes ask for page after page."""

        async def client(node: Node, number: int) -> None:
            async with Connection(PORT, node.address) as connection:
                turn = random.Random(f"{node.name} {number}")
                while not enough.is_set():
                    phase.replies[node.name].append(await connection.get(turn.choice(source.MODULES)))
                    await asyncio.sleep(PAUSE)

        await asyncio.gather(*(client(node, number) for node in nodes for number in range(CLIENTS)))

    async def reset(self, phase: Phase, on: Node, seen_by: list[Node], release: int) -> float:
        """Reset; return the seconds until the last of these nodes has answered with the new release."""
        began = time.monotonic()
        async with Connection(PORT, on.address) as connection:
            await connection.post("/reset")
        ended = 0.0
        for node in seen_by:
            while not (found := [r for r in phase.replies[node.name] if r.release >= release]):
                await asyncio.sleep(PAUSE)
            ended = max(ended, found[0].ended)
        return ended - began

    async def play(self) -> Story:
        story, nodes = self.story, self.nodes
        *staying, gone = nodes
        await self._connected(nodes)
        with self.phase("cold") as phase:
            await self.everything(phase, nodes)
            await self._filled(nodes)
        with self.phase("warm") as phase:
            await self.everything(phase, nodes)
        with self.phase("reset") as phase:
            enough = asyncio.Event()
            load = asyncio.create_task(self.load(phase, nodes, enough))
            story.reset_seconds = await self.reset(phase, nodes[0], nodes, release=2)
            enough.set()
            await load
            await self.everything(phase, nodes)
            await self._filled(nodes)
        with self.phase("lost") as phase:
            enough = asyncio.Event()
            load = asyncio.create_task(self.load(phase, staying, enough))
            gone.kill()
            await self._connected(staying)
            await self.reset(phase, staying[1], staying, release=3)
            enough.set()
            await load
            await self.everything(phase, staying)
            await self._filled(staying)
        with self.phase("back") as phase:
            began = time.monotonic()
            await asyncio.to_thread(gone.start)
            await self._connected(nodes)
            await self._filled(nodes)
            story.back_seconds = time.monotonic() - began
            await self.everything(phase, nodes)
        print(flush=True)
        return story

    async def _connected(self, nodes: list[Node]) -> None:
        def connected() -> bool:
            return all(node.live() == len(nodes) - 1 for node in nodes)

        await asyncio.to_thread(until, connected, "all nodes know each other")

    async def _filled(self, nodes: list[Node]) -> None:
        def filled() -> bool:
            return all(node.entries() == len(source.MODULES) for node in nodes)

        await asyncio.to_thread(until, filled, "all nodes have all pages")


def table(story: Story) -> str:
    """Requests and renderings, phase by phase and node by node."""
    names = [f"node{number}" for number in range(1, NODES + 1)]
    lines = [f"{'requests / pages rendered':<30}" + "".join(f"{name:>15}" for name in [*names, "together"])]
    for phase_name, phase in story.phases.items():
        requests = [len(phase.replies[name]) for name in names]
        rendered = [sum(phase.rendered[name].values()) for name in names]
        cells = [f"{r:,} / {c}" for r, c in zip([*requests, sum(requests)], [*rendered, sum(rendered)], strict=True)]
        lines.append(f"  {phase_name:<28}" + "".join(f"{cell:>15}" for cell in cells))
    lines.append(f"{'reset: seen on all nodes after':<30}{story.reset_seconds * 1e3:>57,.0f} ms")
    lines.append(f"{'back: all pages there after':<30}{story.back_seconds:>58,.1f} s")
    lines.append(f"{'older than a reply before':<30}{story.older():>60,}")
    return "\n".join(lines)


def conclusion(story: Story) -> str:
    if broken := story.broken():
        return "PROMISE BROKEN by coopshm: " + "; ".join(broken) + "."
    return (
        f"Seen: each of {len(source.MODULES)} pages was rendered once in the cluster for each release, wherever it was "
        "asked for; a reset on one node reached all; no node answered with an older page after a newer one; and a node "
        "that had lost everything got all pages from the others, and rendered none."
    )


def play(ground: Ground, kind: str | None) -> int:
    """On this ground, with an engine of that kind if any; the status of this program."""
    nodes: list[Node] = []
    engine = None
    try:
        engine = Engine(ground, kind) if kind else None
        by = f"by way of {engine.version()}" if engine else "with each other"
        print(
            f"{NODES} nodes with {workers} workers and a sidecar each, {CLIENTS} clients of each node, "
            f"{len(source.MODULES)} pages; the sidecars are connected {by}"
        )
        if engine:
            engine.start()
        cluster = by_engine(engine.url) if engine else direct(ground, NODES)
        secret = secrets.token_hex(32)
        for number in range(1, NODES + 1):
            nodes.append(Node(source.directory() / f"node{number}", number, ground, cluster, secret))
            nodes[-1].start()
        story = asyncio.run(Observer(nodes).play())
    except NodeError as exc:
        print(f"\n{exc}", *(f"---- {node.name}\n{node.log()}" for node in nodes), sep="\n", file=sys.stderr)
        return 1
    finally:
        for node in nodes:
            node.kill()
        if engine:
            engine.stop()
    print("", table(story), "", textwrap.fill(conclusion(story), 90), sep="\n")
    return 1 if story.broken() else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.cluster", description="Three nodes and their clients.")
    parser.add_argument("--engine", choices=["redis", "valkey"], help="connect the nodes by way of such a server")
    parser.add_argument("--loopback", action="store_true", help="do without network namespaces")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # leaves through `finally`
    with enter([sys.executable, "-m", "demo.cluster", *sys.argv[1:]], loopback=given.loopback) as ground:
        return ground if isinstance(ground, int) else play(ground, given.engine)


if __name__ == "__main__":
    sys.exit(main())
