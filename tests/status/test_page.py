"""The status page's application: what it answers, and to whom."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

import coopshm
from coopshm.stats import Histogram
from coopshm.status import document
from coopshm.status.history import History
from coopshm.status.look import Watch
from coopshm.status.page import Page

STATIC = Path(document.__file__).parent / "static"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """Asks the application, without a server in between."""

    def __init__(self, namespace: str, **options: Any) -> None:
        self.watch, self.history = Watch(namespace), History()
        self.page = Page(self.watch, self.history, **options)

    def get(self, path: str, query: str = "", method: str = "GET", **environ: str) -> Answer:
        full = {"SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": method}
        full |= {"HTTP_HOST": "127.0.0.1:7410", **environ}
        setup_testing_defaults(full)
        began: list[Any] = []
        body = validator(self.page)(full, lambda status, headers, exc_info=None: began.extend([status, headers]))
        data = b"".join(body)
        body.close()
        return Answer(int(began[0].split()[0]), dict(began[1]), data)

    def state(self, query: str = "") -> Any:
        return json.loads(self.get("/api/status.json", query).body)


@pytest.fixture
def client(namespace: str) -> Iterator[Client]:
    client = Client(namespace)
    yield client
    client.watch.close()


def test_the_page_and_its_files(client: Client) -> None:
    seen: set[str] = set()

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert not {name for name, _ in attrs if name.startswith("on") or name == "style"}
            seen.update(value for name, value in attrs if name in ("href", "src") and value and value[0] != "#")

    index = client.get("/")
    Links().feed(index.body.decode())
    assert seen == {"favicon.svg", "status.css", "status.js", "metrics", "api/status.json"}
    for name in (path.name for path in STATIC.iterdir() if path.name != "index.html"):
        answer = client.get(f"/{name}")
        assert (answer.status, answer.body) == (200, (STATIC / name).read_bytes())
        assert b"://" not in answer.body.replace(b"http://www.w3.org/", b""), "nothing comes from elsewhere"


@pytest.mark.parametrize("path", ["/", "/status.js", "/api/status.json", "/metrics", "/nowhere"])
def test_every_answer_has_the_policy(client: Client, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:80", "localhost:7410", "[::1]:7410", "10.1.2.3:99", "Web1:7410"]
)
def test_known_names_are_answered(namespace: str, host: str) -> None:
    assert Client(namespace, names=["web1"]).get("/", HTTP_HOST=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7410",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "a b",
        "[::1",
        "1:2:3",
    ],
)
def test_other_names_are_not(client: Client, host: str) -> None:
    """A site whose name resolves to this host (DNS rebinding) learns nothing."""
    for path in ("/", "/api/status.json", "/metrics"):
        answer = client.get(path, HTTP_HOST=host)
        assert answer.status == 421
        assert b"coopshm_" not in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(client: Client, method: str) -> None:
    answer = client.get("/api/status.json", method=method, CONTENT_LENGTH="0")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_head_has_no_body(client: Client) -> None:
    answer = client.get("/", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) == len(client.get("/").body)


@pytest.mark.parametrize("path", ["/nowhere", "/../look.py", "/static/index.html", "/index.html/", "//"])
def test_there_is_nothing_else(client: Client, path: str) -> None:
    assert client.get(path).status == 404


def test_it_can_be_mounted_anywhere(client: Client) -> None:
    answer = client.get("", SCRIPT_NAME="/ops/caches")
    assert (answer.status, answer.headers["Location"]) == (308, "/ops/caches/")
    assert client.get("/", SCRIPT_NAME="/ops/caches").status == 200


def test_the_document(client: Client, cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    mine = cache(version="2026-11")
    mine.cached(("<script>", 1), lambda: bytes(5000))
    client.history.add(client.watch.looks())
    with pytest.raises(ZeroDivisionError):
        mine.cached("failing", lambda: 1 // 0)
    client.history.add(client.watch.looks())
    state = client.state()
    assert (state["namespace"], state["detail"]) == (namespace, None)
    (summary,) = state["caches"]
    assert (summary["cache"], summary["version"], summary["entries"], summary["misses"]) == ("c", '"2026-11"', 1, 2)
    assert summary["recent"]["failures"] > 0
    detail = client.state(f"namespace={namespace}&cache=c")["detail"]
    assert {slow["key"] for slow in detail["slowest"]} == {"('<script>', 1)", "'failing'"}
    assert sum(chunk["allocated_bytes"] for chunk in detail["chunks"]) > 5000
    assert detail["compute"]["count"] == 2
    assert detail["series"]["entries"] == [1.0]
    assert len(detail["processes"]) == 1
    assert client.state("namespace=x&cache=c")["detail"] is None


def test_a_broken_cache_is_shown_as_such(client: Client, namespace: str) -> None:
    Path(f"/dev/shm/coopshm:{namespace}:broken").write_bytes(b"\1" * 8192)
    (summary,) = client.state()["caches"]
    assert summary["cache"] == "broken"
    assert summary["error"]


def test_quantiles_lie_in_their_buckets() -> None:
    assert document.quantile(Histogram(0, 0.0, 0.0, ((0.1, 0), (math.inf, 0))), 0.5) == 0.0
    some = Histogram(100, 10.0, 4.0, ((0.1, 98), (1.0, 99), (2.0, 99), (math.inf, 100)))
    assert [document.quantile(some, share) for share in (0.5, 0.99, 1.0)] == [0.1, 1.0, 4.0]
    assert document.quantile(some._replace(max=0.05), 0.5) == 0.05
