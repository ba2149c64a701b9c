"""`memoize`: a function whose results are cached, under a key made of its name and arguments."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from types import MethodType
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar, cast, overload

from ._front import Memo, cached
from .config import check_name
from .errors import shorten
from .limits import OnTimeout, check_on_timeout, check_timeout
from .values import NoCache

__all__ = ["Memoized", "memoize"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class Memoized(Protocol[P, R_co]):
    """A function whose results are cached. Made by `memoize`."""

    @property
    def __wrapped__(self) -> Callable[P, Any]:
        """The function itself."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> tuple[object, ...]:
        """Return the key of a call with these arguments."""

    # In a class it is a method, as any function. (Then `cache_key` is the class's: it takes `self` as well.)
    @overload
    def __get__(self, instance: None, owner: type, /) -> Memoized[P, R_co]: ...
    @overload
    def __get__(
        self: Memoized[Concatenate[Any, Q], R_co], instance: object, owner: type | None = None, /
    ) -> Callable[Q, R_co]: ...


class _Limits(NamedTuple):
    timeout: float | None
    on_timeout: OnTimeout | None


def memoize(
    name: str,
    *,
    key: Callable[..., object] | None = None,
    timeout: float | None = None,
    on_timeout: OnTimeout | None = None,
) -> Callable[[Callable[P, R | NoCache[R]]], Memoized[P, R]]:
    """Return a decorator that caches what a function returns in cache `name`.

    The key is the function's module and qualified name with the arguments, the same however they are passed: `f(1)`,
    `f(x=1)` and a default of 1 are one call. A change of the code does not change the key: reset the cache, or have its
    `version` follow the code. Works on functions and on coroutine functions (see `acached`), and on methods with `key`.
    What else the result depends on has to be an argument: functions that another one makes (closures) have one name and
    would share their results.

    The decorated function has `cache_key(*args, **kwargs)`, the key of such a call, and `__wrapped__`, the function
    itself.

    Args:
        name: of the cache, which is opened at the first call.
        key: called with the arguments, returns what is to stand for them in the key. For arguments that cannot be keys
            themselves, such as `self` or a connection. Default: the arguments.
        timeout, on_timeout: of each call, as in `Cache.cached`.

    Raises:
        ConfigError: `name` cannot be a name; `timeout` or `on_timeout` is none.
        TypeError: there is no name; or what is decorated has none, as a lambda.
        InvalidKeyError: by a call, when an argument cannot be part of a key.
    """
    import inspect  # large, and not needed by who decorates nothing

    if callable(name):
        raise TypeError('memoize() takes the name of a cache: write @coopshm.memoize("NAME")')
    check_name(name)
    limits = _Limits(
        None if timeout is None else check_timeout(timeout),
        None if on_timeout is None else check_on_timeout(on_timeout),
    )

    def decorate(function: Callable[P, R | NoCache[R]]) -> Memoized[P, R]:
        if isinstance(function, (classmethod, staticmethod)):
            kind = type(function).__name__
            raise TypeError(f"memoize() decorates functions: write @coopshm.memoize below @{kind}, not above it")
        if getattr(function, "__qualname__", "<lambda>").endswith("<lambda>"):
            raise TypeError(
                f"memoize() decorates functions, which have a name for the key; {shorten(function)} has none of its own"
            )
        make: Callable[..., Callable[..., object]] = (
            _coroutine_function if inspect.iscoroutinefunction(function) else _Function
        )
        return cast("Memoized[P, R]", make(name, function, _Keys(function, key), limits))

    return decorate


class _Keys:
    """The keys of a function's calls."""

    def __init__(self, function: Callable[..., object], own: Callable[..., object] | None) -> None:
        import inspect

        # In a process that multiprocessing has spawned, the main module has another name than in the one that did so.
        module = "__main__" if function.__module__ == "__mp_main__" else function.__module__
        self.name = f"{module}.{function.__qualname__}"
        self._own = own
        self._signature = inspect.signature(function)
        self._kinds = {name: p.kind.name for name, p in self._signature.parameters.items()}

    @property
    def ordinary(self) -> int:
        """How many positional arguments are, after the name, the items of the key; -1 when it is not so simple."""
        simple = self._own is None and all(kind.startswith("POSITIONAL") for kind in self._kinds.values())
        return len(self._kinds) if simple else -1

    def of(self, *args: object, **kwargs: object) -> tuple[object, ...]:
        if self._own is not None:
            return (self.name, self._own(*args, **kwargs))
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return (self.name, *(self._item(name, value) for name, value in bound.arguments.items()))

    def _item(self, name: str, value: object) -> object:
        if self._kinds[name] == "VAR_KEYWORD":
            return tuple(sorted(cast("dict[str, object]", value).items()))
        return value


class _Function(Memo):
    """What `memoize` makes of a function: hits are in C (csrc/python/memo.c)."""

    def __init__(self, name: str, function: Callable[..., object], keys: _Keys, limits: _Limits) -> None:
        super().__init__(name, keys.name, keys.ordinary)
        functools.update_wrapper(self, function)  # first: attributes of the function may have the names of these
        self._name = name
        self._wrapped = function
        self._limits = limits
        self.cache_key = keys.of

    def __get__(self, instance: object, owner: type | None = None) -> object:
        return self if instance is None else MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<memoized {self._wrapped!r} in cache {self._name!r}>"

    def __reduce__(self) -> str:
        """By name, as other functions: for pools of processes, and queues of tasks."""
        return cast("str", vars(self)["__qualname__"])

    def _ask(self, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        timeout, on_timeout = self._limits
        key, fn = self.cache_key(*args, **kwargs), functools.partial(self._wrapped, *args, **kwargs)
        return cached(self._name, key, fn, timeout=timeout, on_timeout=on_timeout)


def _coroutine_function(
    name: str, function: Callable[..., Awaitable[object]], keys: _Keys, limits: _Limits
) -> Callable[..., object]:
    timeout, on_timeout = limits

    @functools.wraps(function)
    async def memoized(*args: object, **kwargs: object) -> object:
        from . import acached

        key, fn = keys.of(*args, **kwargs), functools.partial(function, *args, **kwargs)
        return await acached(name, key, fn, timeout=timeout, on_timeout=on_timeout)

    memoized.cache_key = keys.of  # type: ignore[attr-defined]
    return memoized
