"""Which server, in which mode, is held to which check: the table of docs/servers.md, row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from tests.servers import checks, granian, gunicorn, uvicorn
from tests.servers.checks import Make
from tests.servers.server import Server

#: The columns. A mode has a check for each, or says why there is none.
COLUMNS = ("stampede", "waiting", "reset", "kill", "timeout", "recycle", "reload", "restart")

Check = Callable[[Make], None]

ALL: Mapping[str, Check] = {
    "stampede": checks.stampede,
    "waiting": checks.waiting,
    "reset": checks.reset,
    "kill": checks.kill,
    "timeout": checks.timeout,
    "recycle": checks.recycle,
    "reload": checks.reload,
    "restart": checks.restart,
}

ONE_AT_A_TIME = "a worker has one request at a time"
THREADS_ARE_NOT_TIMED = "the server's timeout does not look at the threads"


class Mode(NamedTuple):
    server: str  # the section of docs/servers.md
    mode: str
    make: Callable[..., Server]  # called with a Site, and with options to add to the command
    checks: Mapping[str, Check | str]  # by column; text says why a check has no meaning here


def _gunicorn() -> Iterator[Mode]:
    kinds: list[tuple[str, type[Server], Mapping[str, str]]] = [
        ("sync", gunicorn.Gunicorn, {"waiting": ONE_AT_A_TIME}),
        ("gthread", gunicorn.Gthread, {"timeout": THREADS_ARE_NOT_TIMED}),
        ("gevent", gunicorn.Gevent, {}),
        ("uvicorn-worker", gunicorn.Uvicorn, {}),
    ]
    for name, kind, without in kinds:
        yield Mode("gunicorn", name, kind, {**ALL, **without})
        yield Mode("gunicorn", f"{name} --preload", partial(kind, arguments=["--preload"]), {**ALL, **without})


_GRANIAN = {
    "timeout": "it has none for workers that are at work",
    "recycle": "by age or memory, as in a reload",
}

MODES = [
    *_gunicorn(),
    Mode("uvicorn", "workers", uvicorn.Uvicorn, {**ALL, "timeout": "it has none for workers that are at work"}),
    Mode("granian", "wsgi", granian.Granian, {**ALL, **_GRANIAN}),
    Mode("granian", "asgi", granian.Asgi, {**ALL, **_GRANIAN}),
]
