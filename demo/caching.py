"""Two ways to keep rendered pages, behind one interface: this file is the comparison."""

import functools
import time
from typing import Protocol

import coopshm
from demo import source
from demo.render import Page, render


class Caching(Protocol):
    def page(self, name: str) -> Page:
        """The page of the module `name`, from the cache or rendered."""

    def reset(self) -> None:
        """The source has a new release: no page of an older one is wanted any more."""


def compute(name: str, asked: float) -> Page:
    """What a cache computes. `asked` is when the request turned to the cache (monotonic seconds)."""
    release = source.release()
    source.note(source.Computation(name, release, asked, time.monotonic()))
    return render(name, release)


class PerWorker:
    """A cache in each worker, with the standard library's means."""

    def __init__(self) -> None:
        self._page = functools.lru_cache(maxsize=None)(lambda name: compute(name, time.monotonic()))

    def page(self, name: str) -> Page:
        return self._page(name)

    def reset(self) -> None:
        source.publish(source.release() + 1)
        self._page.cache_clear()  # of this worker; it has no way to reach the others


class Shared:
    """One cache for all workers."""

    def __init__(self) -> None:
        coopshm.open("pages")  # before the first request: a sidecar connects the caches that there are

    def page(self, name: str) -> Page:
        asked = time.monotonic()
        return coopshm.cached("pages", name, lambda: compute(name, asked))

    def reset(self) -> None:
        coopshm.reset("pages")  # calls source.publish with the next version


WAYS: dict[str, type[Caching]] = {"per-worker": PerWorker, "coopshm": Shared}
