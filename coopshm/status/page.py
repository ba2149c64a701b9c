"""The status page, as a WSGI application: what a browser and a monitoring system may ask for.

    /                  the page, and its files from static/
    /api/status.json   what it shows; with ?namespace=NS&cache=NAME one cache in every detail
    /metrics           for Prometheus (needs the extra coopshm[metrics])

It answers GET and HEAD, and changes nothing. All addresses in it are relative, so that it can be mounted anywhere.

A key is what users of the application made it. It goes to the browser as JSON, which the page puts into text nodes
only; should it ever not, the policy below forbids the browser to run anything that is not a file of this package.

A site that somebody visits may have its name resolve to 127.0.0.1 (DNS rebinding), and its scripts then speak to this
server as to their own. They cannot choose the Host header, though: so it must be an address, or a name that is known.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, quote

from ..objects import Place
from . import document
from .history import History
from .look import Watch

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["Page"]

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/status.css": ("status.css", "text/css; charset=utf-8"),
    "/status.js": ("status.js", "text/javascript; charset=utf-8"),
    "/parts.js": ("parts.js", "text/javascript; charset=utf-8"),
    "/dom.js": ("dom.js", "text/javascript; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}

_HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
]

_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?")


class _Answer(NamedTuple):
    status: str
    type: str
    body: bytes


class Page:
    """The application. `History` must be kept up by a `Sampler`, else there are no rates."""

    def __init__(self, watch: Watch, history: History, names: Sequence[str] = (), any_name: bool = False) -> None:
        """Args:
        names: by which it may be asked for, besides localhost and all addresses.
        any_name: for a server that checks the Host header itself.
        """
        self._watch, self._history = watch, history
        self._names = {name.lower() for name in names}
        self._any_name = any_name

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answer = self._answer(environ)
        headers = [("Content-Type", answer.type), ("Content-Length", str(len(answer.body))), *_HEADERS]
        if answer.status.startswith("405"):
            headers.append(("Allow", "GET, HEAD"))
        if answer.status.startswith("308"):
            headers.append(("Location", quote(environ["SCRIPT_NAME"], encoding="latin-1") + "/"))
        start_response(answer.status, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

    def _answer(self, environ: WSGIEnvironment) -> _Answer:
        host = environ.get("HTTP_HOST", "")
        if not (self._any_name or self._is_known(host)):
            return _text("421 Misdirected Request", f"this server is not known as {host!r}; see --allow-name")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _text("405 Method Not Allowed", "nothing can be changed here")
        path = environ.get("PATH_INFO", "") or "/"
        if path == "/" and environ.get("SCRIPT_NAME") and not environ.get("PATH_INFO"):
            return _text("308 Permanent Redirect", "the page's addresses are relative to the / at its end")
        if path in _FILES:
            name, type = _FILES[path]
            return _Answer("200 OK", type, _static(name))
        if path == "/api/status.json":
            return self._status(environ.get("QUERY_STRING", ""))
        if path == "/metrics":
            return self._metrics(environ.get("HTTP_ACCEPT", ""))
        return _text("404 Not Found", "there is the page at /, /api/status.json, and /metrics")

    def _is_known(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].strip("[]").lower()
        if name in self._names or name == "localhost":
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _status(self, query: str) -> _Answer:
        asked = parse_qs(query)
        chosen = None
        if "namespace" in asked and "cache" in asked:
            chosen = Place(asked["namespace"][0], asked["cache"][0])
        looks = self._watch.looks(detailed=lambda place: place == chosen)
        body = json.dumps(document.make(looks, self._history, self._watch.namespace), separators=(",", ":"))
        return _Answer("200 OK", "application/json", body.encode())

    def _metrics(self, accept: str) -> _Answer:
        try:
            from .. import metrics
        except ImportError as exc:
            return _text("501 Not Implemented", str(exc))
        body, type = metrics.expose(self._watch.looks(), accept)
        return _Answer("200 OK", type, body)


def _text(status: str, text: str) -> _Answer:
    return _Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode(errors="backslashreplace"))


def _static(name: str) -> bytes:
    return (resources.files(__package__) / "static" / name).read_bytes()
