"""A FastAPI application with coopshm.

    uvicorn fastapi_app:app --workers 3
    coopshm-admin --config fastapi_app.toml reset products

Its caches are configured in the file beside it. Starlette is the same without the routes' decorators.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import catalogue
from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

import coopshm


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Opens the caches: that is short, but not asynchronous, and nobody is to wait for it later."""
    coopshm.configure(Path(__file__).with_name("fastapi_app.toml"))
    coopshm.on_reset("products", catalogue.reload)
    coopshm.open("pictures")
    yield


app = FastAPI(lifespan=lifespan)


@coopshm.memoize("products")
async def page(number: int) -> str:
    return await asyncio.to_thread(catalogue.page, number)


@app.get("/products/{number}")
async def show_product(number: int) -> Any:
    async def load() -> dict[str, Any]:
        return await asyncio.to_thread(catalogue.product, number)

    return await coopshm.acached("products", ("product", number), load)


@app.get("/pages/{number}", response_class=HTMLResponse)
async def show_page(number: int) -> str:
    return await page(number)


@app.get("/pictures/{number}")
def show_picture(number: int) -> Response:
    """A plain function, which FastAPI calls in a thread: there `view` may wait. What it returns is over shared memory,
    and the server gets just that, without a copy."""
    view = coopshm.open("pictures").view(number, lambda: catalogue.picture(number))
    return Response(view, media_type="image/svg+xml")


@app.post("/reset")
def reset(x_token: str = Header("")) -> Any:
    """There is new data. In a thread as well: a reset runs hooks, and may wait for another one."""
    token = os.environ.get("RESET_TOKEN", "")
    if not token or not hmac.compare_digest(x_token, token):
        raise HTTPException(403)
    return {"version": coopshm.reset("products"), "pictures": coopshm.reset("pictures")}


@app.get("/health")
async def health() -> Any:
    return {"worker": os.getpid(), "version": coopshm.version("products")}


@app.exception_handler(catalogue.UnknownProductError)
async def unknown(_request: Request, _error: Exception) -> Response:
    return JSONResponse({"error": "no such product"}, 404)


@app.exception_handler(coopshm.WaitTimeout)
async def busy(_request: Request, _error: Exception) -> Response:
    return JSONResponse({"error": "it is being computed"}, 503, {"Retry-After": "5"})
