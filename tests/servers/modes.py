"""Which server, in which mode, is held to which check: the table of docs/servers.md, row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from tests.servers import checks, granian, gunicorn, uvicorn, uwsgi
from tests.servers.checks import Make
from tests.servers.server import Server

#: The columns. A mode has a check for each, or says why there is none.
COLUMNS = ("stampede", "waiting", "reset", "kill", "timeout", "recycle", "reload", "upgrade", "restart")

Check = Callable[[Make], None]

ALL: Mapping[str, Check] = {
    "stampede": checks.stampede,
    "waiting": checks.waiting,
    "reset": checks.reset,
    "kill": checks.kill,
    "timeout": checks.timeout,
    "recycle": checks.recycle,
    "reload": checks.reload,
    "upgrade": checks.upgrade,
    "restart": checks.restart,
}

ONE_AT_A_TIME = "a worker has one request at a time"
UNCHANGED = "not run in this mode: what it changes is not known to matter here"
A_RELOAD_DOES = "a reload does it"
NO_TIMEOUT = "it has none for workers that are at work"
NO_UPGRADE = "it cannot replace its master"
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
        yield Mode("gunicorn", name, kind, {**ALL, **without, "upgrade": A_RELOAD_DOES})
        yield Mode("gunicorn", f"{name} --preload", partial(kind, arguments=["--preload"]), {**ALL, **without})


def _uwsgi() -> Iterator[Mode]:
    one_clock = {"timeout": "harakiri has one clock for all requests of a worker, which any of them stops"}
    kinds: list[tuple[str, type[Server], list[str], Mapping[str, str]]] = [
        ("as in the file", uwsgi.Uwsgi, [], {"waiting": ONE_AT_A_TIME}),
        ("lazy-apps", uwsgi.Uwsgi, ["--lazy-apps"], {"waiting": ONE_AT_A_TIME}),
        ("threads", uwsgi.Uwsgi, ["--threads", "32"], one_clock),
    ]
    for name, kind, arguments, without in kinds:
        yield Mode("uWSGI", name, partial(kind, arguments=arguments), {**ALL, "upgrade": A_RELOAD_DOES, **without})
    others: list[tuple[str, type[Server], list[str], list[str]]] = [
        ("no shared-import", uwsgi.Unopened, [], ["stampede", "recycle"]),
        (
            "gevent",
            uwsgi.Uwsgi,
            ["--gevent", "100", "--gevent-monkey-patch"],
            ["stampede", "waiting", "reset", "kill", "reload"],
        ),
        ("touch-reload", uwsgi.Touched, [], ["reload"]),
        ("touch-chain-reload, lazy-apps", uwsgi.Chained, ["--lazy-apps"], ["reload"]),
        ("cheaper", uwsgi.Cheaper, ["--cheaper", "1", "--cheaper-overload", "1"], ["stampede"]),
        ("thunder-lock", uwsgi.Uwsgi, ["--thunder-lock"], ["kill"]),
        ("offload-threads", uwsgi.Uwsgi, ["--offload-threads", "2"], ["reset"]),
        ("py-call-uwsgi-fork-hooks", uwsgi.Uwsgi, ["--py-call-uwsgi-fork-hooks"], ["kill"]),
    ]
    for name, kind, arguments, held_to in others:
        some = {column: check if column in held_to else UNCHANGED for column, check in ALL.items()}
        yield Mode("uWSGI", name, partial(kind, arguments=arguments), some)


_GRANIAN = {
    "timeout": NO_TIMEOUT,
    "recycle": "by age or memory, as in a reload",
    "upgrade": NO_UPGRADE,
}

MODES = [
    *_gunicorn(),
    *_uwsgi(),
    Mode("uvicorn", "workers", uvicorn.Uvicorn, {**ALL, "timeout": NO_TIMEOUT, "upgrade": NO_UPGRADE}),
    Mode("granian", "wsgi", granian.Granian, {**ALL, **_GRANIAN}),
    Mode("granian", "asgi", granian.Asgi, {**ALL, **_GRANIAN}),
]


class Cell(NamedTuple):
    """One check of one mode: a test."""

    mode: Mode
    column: str
    check: Check

    @property
    def id(self) -> str:
        return f"{self.mode.server}-{self.mode.mode}-{self.column}".replace(" ", "-")


CELLS = [Cell(mode, column, check) for mode in MODES for column in COLUMNS if callable(check := mode.checks[column])]
