"""The example applications of Flask, Django and FastAPI, in real servers: a stampede, a reset, large replies.

Their data are files. A product that is a named pipe holds the one who reads it until the test writes: a computation
too many would never end. How often something was computed is what the cache itself has counted.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from tests.procs import WATCHDOG, until
from tests.servers.client import Crowd, ask
from tests.servers.gate import Gate
from tests.servers.server import Server
from tests.servers.site import EXAMPLES, Site

CACHES = ("products", "pictures")
TOKEN = "known to who has new data"
CLIENTS = 12


class Framework(Server):
    """An example application, as its head says that it is started."""

    examples = EXAMPLES
    admin: tuple[str, ...] = ()  # the command that has coopshm-admin's commands
    products = "/products"

    def environment(self) -> dict[str, str]:
        return {
            **super().environment(),
            "COOPSHM_NAMESPACE": self.site.namespace,
            "PYTHONPATH": str(self.examples),
            "SHOP_DATA": str(self.site.directory),
            "FLASK_RESET_TOKEN": TOKEN,
            "RESET_TOKEN": TOKEN,
        }

    def wait_for_workers(self) -> None:
        seen: set[int] = set()
        until(lambda: self._see(seen) >= self.workers, self.tail)

    def _see(self, seen: set[int]) -> int:
        crowd = Crowd(self.port)
        crowd.ask("/health", 2 * self.workers)
        seen |= {reply.body["worker"] for reply in crowd.replies() if reply.good}
        return len(seen)

    def check_memory(self) -> None:
        assert self.site.objects() <= set(CACHES)
        for name in self.site.objects():
            stats = self.site.observe(name)
            assert (stats.processes, stats.flights, stats.waiters, stats.pinned_chunks) == (0, 0, 0, 0)
            assert self.site.damage(name) == []

    def administer(self, *arguments: str) -> str:
        """Run one of coopshm-admin's commands the way the framework has them."""
        done = subprocess.run(
            [sys.executable, *self.admin, *arguments],
            cwd=self.examples,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=WATCHDOG,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fetch(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WATCHDOG)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


class _Gunicorn(Framework):
    application = ""

    def command(self, listener: socket.socket) -> list[str]:
        return [
            *(sys.executable, "-m", "gunicorn", "--preload", "--workers", "3", "--threads", "16"),
            *("--bind", f"fd://{listener.fileno()}", "--no-control-socket", self.application),
        ]


class Flask(_Gunicorn):
    application = "flask_app:create_app()"
    admin = ("-m", "flask", "--app", "flask_app", "coopshm")


class Django(_Gunicorn):
    application = "shop.wsgi"
    examples = EXAMPLES / "django_site"
    admin = ("manage.py", "coopshm")


class _Uvicorn(Framework):
    application = ""

    def command(self, listener: socket.socket) -> list[str]:
        return [
            *(sys.executable, "-m", "uvicorn", self.application, "--workers", "3", "--fd", str(listener.fileno())),
        ]


class DjangoAsync(_Uvicorn):
    application = "shop.asgi:application"
    examples = EXAMPLES / "django_site"
    admin = ("manage.py", "coopshm")
    products = "/async/products"


class FastAPI(_Uvicorn):
    application = "fastapi_app:app"
    admin = ("-c", "from coopshm.admin import main; main()", "--config", "fastapi_app.toml")


FRAMEWORKS = [Flask, Django, DjangoAsync, FastAPI]


@pytest.fixture(params=FRAMEWORKS, ids=lambda kind: kind.__name__)
def server(request: pytest.FixtureRequest, tmp_path: Path, namespace: str) -> Iterator[Framework]:
    (tmp_path / "currency.json").write_text('{"format": "{} EUR"}')
    (tmp_path / "1.json").write_text('{"name": "Teapot", "price": 24}')
    with Gate() as gate, request.param(Site(tmp_path, namespace, gate)) as running:
        yield running


class Pipe:
    """A product whose data come when the test says so: to one reader, and the next one has a pipe of its own."""

    def __init__(self, server: Framework, number: int) -> None:
        self._path = server.site.directory / f"{number}.json"
        self._make()

    def _make(self) -> None:
        new = self._path.with_suffix(".new")
        os.mkfifo(new)
        new.replace(self._path)

    def catch(self) -> Callable[[int], None]:
        """Wait for a reader. What is returned is to be called with the price that it shall read."""
        pipes: list[TextIO] = []
        opens = threading.Thread(target=lambda: pipes.append(self._path.open("w")), daemon=True)
        opens.start()
        opens.join(WATCHDOG)
        assert pipes, "nobody reads"
        self._make()

        def give(price: int) -> None:
            with pipes[0] as pipe:
                json.dump({"name": "Tea", "price": price}, pipe)

        return give


def crowd_that_waits(server: Framework, path: str) -> Crowd:
    """Clients that all ask for one product; at least two workers have been asked."""
    crowd = Crowd(server.port)
    crowd.ask(path, CLIENTS)
    while True:
        until(lambda: server.site.observe("products").flights == 1, server.tail)
        if server.site.observe("products").waiters:
            return crowd
        crowd.ask(path)


def workers_say(server: Framework, price: str) -> None:
    """Every worker says that the teapot costs this."""
    for _ in range(5 * server.workers):
        assert server.get(f"{server.products}/1").body == {"name": "Teapot", "price": price}


def test_a_stampede_is_one_computation(server: Framework) -> None:
    pipe = Pipe(server, 7)
    crowd = crowd_that_waits(server, f"{server.products}/7")
    pipe.catch()(3)
    assert {json.dumps(reply.body) for reply in crowd.replies()} == {'{"name": "Tea", "price": "3 EUR"}'}
    assert server.site.observe("products").computations == 1


@pytest.mark.parametrize("how", ["request", "command"])
def test_after_a_reset_nothing_old_is_served(server: Framework, how: str) -> None:
    """Neither what is stored, nor what was being computed, nor what processes keep by themselves."""
    workers_say(server, "24 EUR")
    pipe = Pipe(server, 7)
    crowd = crowd_that_waits(server, f"{server.products}/7")
    before = pipe.catch()
    (server.site.directory / "currency.json").write_text('{"format": "{} USD"}')
    if how == "request":
        assert server.fetch("/reset", "POST", **{"X-Token": "guessed"})[0] == 403
        status, body = server.fetch("/reset", "POST", **{"X-Token": TOKEN})
        assert (status, json.loads(body)["version"]) == (200, 2)
    else:
        assert "version 1 -> 2" in server.administer("reset", "products")
    pipe.catch()(4)
    before(3)
    assert {json.dumps(reply.body) for reply in crowd.replies()} == {'{"name": "Tea", "price": "4 USD"}'}
    workers_say(server, "24 USD")
    assert ask(server.port, "/health").body["version"] == 2
    assert json.loads(server.administer("stats", "products", "--json"))["resets"] == 1


def test_pages_and_large_pictures(server: Framework) -> None:
    picture = os.urandom(3_000_001)
    (server.site.directory / "1.svg").write_bytes(picture)
    for _ in range(4):
        assert server.fetch("/pictures/1") == (200, picture)
        assert server.fetch("/pages/1") == (200, b"<!doctype html><title>Teapot</title><p>Teapot: 24 EUR")
    assert server.site.observe("pictures").computations == 1
    assert server.site.observe("products").computations == 1
    until(lambda: server.site.observe("pictures").pinned_chunks == 0, lambda: "a view is kept after its reply")


def test_what_is_not_there_is_404_for_all_who_wait(server: Framework) -> None:
    for _ in range(2 * server.workers):
        reply = ask(server.port, f"{server.products}/404")
        assert (reply.status, json.loads(reply.error)) == (404, {"error": "no such product"})
    assert server.site.observe("products").entries == 0


# ---- without a server


def run(directory: Path, program: str, **environment: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_picture_goes_to_the_asgi_server_without_a_copy(namespace: str) -> None:
    program = """if True:
        import asyncio, json
        import fastapi_app
        async def main():
            sent = []
            async def send(message): sent.append(message)
            async def receive(): return {"type": "http.request"}
            scope = {"type": "http", "method": "GET", "path": "/pictures/1", "headers": [], "query_string": b"",
                     "asgi": {"version": "3.0"}, "http_version": "1.1"}
            async with fastapi_app.lifespan(fastapi_app.app):
                await fastapi_app.app(scope, receive, send)
            body = sent[1]["body"]
            pinned = fastapi_app.coopshm.stats("pictures").pinned_chunks
            print(json.dumps([type(body).__name__, pinned, bytes(body) == fastapi_app.catalogue.picture(1)]))
        asyncio.run(main())
    """
    assert run(EXAMPLES, program, COOPSHM_NAMESPACE=namespace) == ["memoryview", 1, True]


def _django(settings: str) -> str:
    return f"""if True:
        import json, django
        from django.conf import settings
        settings.configure(INSTALLED_APPS=["coopshm.integrations.django"], COOPSHM={settings})
        try:
            django.setup()
        except Exception as exc:
            print(json.dumps([type(exc).__name__, str(exc)]))
        else:
            from django.core.checks import run_checks
            print(json.dumps([message.id for message in run_checks()]))
    """


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ('{"namespace": "shop", "caches": {"c": {"on_reset": "json:dumps", "serializer": "pickle"}}}', []),
        ('{"caches": {"c": {}}}', ["coopshm.W001"]),
        ('{"namespace": "shop", "caches": {"c": {"on_reset": "json:no_such_function"}}}', ["coopshm.E001"]),
        ('{"namespace": "shop", "caches": {"c": {"serializer": "no_such_module:s"}}}', ["coopshm.E001"]),
        ('{"namespace": "shop", "caches": {"c": {"memory_limit": "1 TiB", "max_items": 9}}}', ["coopshm.W002"]),
    ],
)
def test_djangos_checks_say_what_is_wrong(tmp_path: Path, namespace: str, settings: str, found: list[str]) -> None:
    assert run(tmp_path, _django(settings)) == found


def test_a_wrong_setting_is_said_when_django_starts(tmp_path: Path, namespace: str) -> None:
    kind, text = run(tmp_path, _django('{"caches": {"c": {"memry_limit": 1}}}'))
    assert kind == "ImproperlyConfigured"
    assert text.startswith("settings.COOPSHM: <mapping>: caches.c.memry_limit: there is no such setting")


@pytest.mark.parametrize(
    ("command", "directory"),
    [
        (["-m", "flask", "--app", "flask_app", "coopshm"], EXAMPLES),
        (["manage.py", "coopshm"], EXAMPLES / "django_site"),
    ],
)
def test_the_frameworks_command_is_coopshm_admin(namespace: str, command: list[str], directory: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "COOPSHM_NAMESPACE": namespace}
        return subprocess.run(
            [sys.executable, *command, *arguments],
            cwd=directory, env=environment, capture_output=True, text=True, timeout=WATCHDOG, check=False,
        )  # fmt: skip

    assert "Look at the coopshm caches of this host" in run("--help").stdout
    assert json.loads(run("stats", "products", "--json").stdout)["memory_limit"] == 16 * 1024 * 1024
    other = run("--namespace", f"{namespace}-other", "stats", "products")
    assert (other.returncode, f"{namespace}-other" in other.stderr) == (3, True)
