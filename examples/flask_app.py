"""A Flask application with coopshm.

    flask --app flask_app run
    gunicorn --preload --workers 3 --threads 16 "flask_app:create_app()"
    flask --app flask_app coopshm reset products

With --preload the caches are opened once, before the workers are forked, and live on while workers are replaced.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterator
from typing import Any

import catalogue
from flask import Flask, Response, abort, request

import coopshm
from coopshm.integrations.flask import Coopshm

#: Bytes that are handed to the server at a time.
CHUNK = 64 * 1024


@coopshm.memoize("products")
def page(number: int) -> str:
    return catalogue.page(number)


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["COOPSHM"] = {
        "namespace": "shop",
        "caches": {
            # Who has waited for 20 seconds for another worker answers 503, see below.
            "products": {"memory_limit": "16 MiB", "timeout": 20},
            "pictures": {"memory_limit": "64 MiB", "timeout": 20},
        },
    }
    app.config.from_prefixed_env()  # FLASK_COOPSHM__namespace=..., FLASK_RESET_TOKEN=...
    Coopshm(app)
    coopshm.on_reset("products", catalogue.reload)
    pictures = coopshm.open("pictures")

    @app.get("/products/<int:number>")
    def show_product(number: int) -> Any:
        return coopshm.cached("products", ("product", number), lambda: catalogue.product(number))

    @app.get("/pages/<int:number>")
    def show_page(number: int) -> str:
        return page(number)

    @app.get("/pictures/<int:number>")
    def show_picture(number: int) -> Response:
        view = pictures.view(number, lambda: catalogue.picture(number))
        assert view is not None
        # WSGI takes nothing but bytes, so each piece is copied once; the whole is never in the worker's memory.
        pieces: Iterator[bytes] = (bytes(view[at : at + CHUNK]) for at in range(0, len(view), CHUNK))
        return Response(pieces, mimetype="image/svg+xml", headers={"Content-Length": str(len(view))})

    @app.post("/reset")
    def reset() -> Any:
        """There is new data. For those who may say so: what else is on this host uses `flask coopshm reset`."""
        token = app.config.get("RESET_TOKEN")
        if not token or not hmac.compare_digest(request.headers.get("X-Token", ""), str(token)):
            abort(403)
        return {"version": coopshm.reset("products"), "pictures": coopshm.reset("pictures")}

    @app.get("/health")
    def health() -> Any:
        return {"worker": os.getpid(), "version": coopshm.version("products")}

    @app.errorhandler(catalogue.UnknownProductError)
    def unknown(_error: Exception) -> Any:
        return {"error": "no such product"}, 404

    @app.errorhandler(coopshm.WaitTimeout)
    def busy(_error: Exception) -> Any:
        return {"error": "it is being computed"}, 503, {"Retry-After": "5"}

    return app
