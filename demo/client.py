"""The clients: keep-alive HTTP connections, and what was seen of each reply."""

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType

REPLY_TIMEOUT = 60.0  # seconds; a reply that takes longer fails the demonstration


@dataclass(frozen=True)
class Reply:
    """One reply to GET. Times are seconds on the monotonic clock, which the server shares."""

    page: str
    began: float  # when the request was sent
    ended: float  # when the last byte of the reply had come
    release: int  # the release that the page shows
    worker: int  # which process rendered it ...
    rendered: float  # ... and when


class Connection:
    """One connection, which carries one request after another."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._host = host
        self._port = port

    async def __aenter__(self) -> "Connection":
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def get(self, page: str) -> Reply:
        """Asks for a page, and checks that the reply holds this very page."""
        began = time.monotonic()
        headers, body = await self._request("GET", f"/{page}.html")
        ended = time.monotonic()
        if f"<title>{page}</title>".encode() not in body[:200]:
            raise ValueError(f"the reply to {page} is another page: {body[:200]!r}")
        return Reply(
            page,
            began,
            ended,
            release=int(headers["x-release"]),
            worker=int(headers["x-rendered-by"]),
            rendered=float(headers["x-rendered-at"]),
        )

    async def post(self, path: str) -> None:
        await self._request("POST", path)

    async def _request(self, method: str, path: str) -> tuple[dict[str, str], bytes]:
        request = f"{method} {path} HTTP/1.1\r\nHost: demo\r\nContent-Length: 0\r\n\r\n"
        self._writer.write(request.encode("ascii"))
        return await asyncio.wait_for(self._reply(method, path), REPLY_TIMEOUT)

    async def _reply(self, method: str, path: str) -> tuple[dict[str, str], bytes]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.rstrip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await self._reader.readexactly(int(headers["content-length"]))
        if status.split()[1] != "200":
            raise ValueError(f"{method} {path}: {status}")
        return headers, body
