"""The WSGI application.

GET / lists the modules, GET /NAME.html is the page of one, POST /reset resets the cache.
"""

import importlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from demo import source
from demo.caching import WAYS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# Imported when the application starts, so that rendering is all that a computation does.
for _name in source.MODULES:
    importlib.import_module(_name)

caching = WAYS[os.environ.get("DEMO_CACHE", "coopshm")]()


def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    name = path.removeprefix("/").removesuffix(".html")
    headers: list[tuple[str, str]] = []
    status = "200 OK"
    if method == "GET" and name in source.MODULES:
        body, release, worker, stamp = caching.page(name)
        headers = [
            ("X-Release", str(release)),
            ("X-Rendered-By", str(worker)),
            ("X-Rendered-At", repr(stamp)),
        ]
    elif method == "GET" and path == "/":
        links = "".join(f'<li><a href="{name}.html">{name}</a>' for name in source.MODULES)
        body = f"<!doctype html><title>modules</title><ul>{links}</ul>".encode()
    elif method == "POST" and path == "/reset":
        caching.reset()
        body = b""
    else:
        status, body = "404 Not Found", b"no such page\n"
    headers += [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]
