"""A TCP proxy between two nodes that can do what networks do: refuse, cut, swallow (in one direction), be slow."""

from __future__ import annotations

import asyncio


class Proxy:
    """Forwards from its own address to another. `blocked`: nothing gets through (in the directions named), nobody is
    told."""

    def __init__(self, address: tuple[str, int], target: tuple[str, int]) -> None:
        self.address = address
        self.target = target
        self.refusing = False
        self.blocked: set[str] = set()  # of "there", "back"
        self.pause = 0.0  # seconds before each chunk
        self.chunk = 65536
        self.passed = 0  # bytes
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accepted, *self.address)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """End all connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    def block(self, *directions: str) -> None:
        self.blocked = set(directions)
        self._open.clear()
        if not directions:
            self._open.set()

    def fail(self, how: str, inward: str, outward: str) -> None:
        """As `Cluster.isolate` says, of a node to which things come in one direction, and go in the other."""
        self.refusing = how == "cut"
        self.pause, self.chunk = (0.01, 20_000) if how == "slow" else (0.0, 65536)
        if how == "cut":
            self.cut()
        self.block(*{"drop": (inward, outward), "deaf": (inward,), "mute": (outward,)}.get(how, ()))

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            if self.refusing:
                return
            back, there = await asyncio.open_connection(*self.target)
            self._writers.add(there)
            pumps = [
                asyncio.ensure_future(self._pump(reader, there, "there")),
                asyncio.ensure_future(self._pump(back, writer, "back")),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass
        except asyncio.CancelledError:
            pass  # stopped; a server's task must not end so
        finally:
            for each in (writer, there):
                if each is not None:
                    each.transport.abort()
                    self._writers.discard(each)
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        while data := await reader.read(self.chunk):
            if self.pause:
                await asyncio.sleep(self.pause)
            while direction in self.blocked:
                await self._open.wait()
                await asyncio.sleep(0)
            writer.write(data)
            self.passed += len(data)
            await writer.drain()
