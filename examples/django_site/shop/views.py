"""The views. Asynchronous ones use acached, the others cached; both share values and computations."""

import asyncio
import functools
import hmac
import os
from collections.abc import Callable
from typing import Any

import catalogue
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_POST

import coopshm

#: Bytes that are handed to the server at a time.
CHUNK = 64 * 1024


def answers(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Turn what computations raise, here or in another worker, into replies."""

    @functools.wraps(view)
    def answer(request: HttpRequest, **parameters: Any) -> HttpResponse:
        try:
            return view(request, **parameters)
        except catalogue.UnknownProductError:
            return JsonResponse({"error": "no such product"}, status=404)
        except coopshm.WaitTimeout:
            return JsonResponse({"error": "it is being computed"}, status=503, headers={"Retry-After": "5"})

    return answer


@answers
def show_product(request: HttpRequest, number: int) -> HttpResponse:
    return JsonResponse(coopshm.cached("products", ("product", number), lambda: catalogue.product(number)))


async def show_product_async(request: HttpRequest, number: int) -> HttpResponse:
    async def load() -> dict[str, Any]:
        return await asyncio.to_thread(catalogue.product, number)

    try:
        return JsonResponse(await coopshm.acached("products", ("product", number), load))
    except catalogue.UnknownProductError:
        return JsonResponse({"error": "no such product"}, status=404)


@coopshm.memoize("products")
def page(number: int) -> str:
    return catalogue.page(number)


@answers
def show_page(request: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse(page(number))


@answers
def show_picture(request: HttpRequest, number: int) -> HttpResponse:
    view = coopshm.open("pictures").view(number, lambda: catalogue.picture(number))
    assert view is not None
    # WSGI takes nothing but bytes, so each piece is copied once; the whole is never in the worker's memory.
    pieces = (bytes(view[at : at + CHUNK]) for at in range(0, len(view), CHUNK))
    return StreamingHttpResponse(pieces, content_type="image/svg+xml", headers={"Content-Length": str(len(view))})


@require_POST
def reset(request: HttpRequest) -> HttpResponse:
    """There is new data. For those who may say so: what else is on this host uses `manage.py coopshm reset`."""
    token = settings.RESET_TOKEN
    if not token or not hmac.compare_digest(request.headers.get("X-Token", ""), token):
        return JsonResponse({"error": "that is not for you"}, status=403)
    return JsonResponse({"version": coopshm.reset("products"), "pictures": coopshm.reset("pictures")})


def health(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"worker": os.getpid(), "version": coopshm.version("products")})
