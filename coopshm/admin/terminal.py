"""One picture after another: over each other on a terminal, below each other elsewhere; and keys that are pressed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

import click

from .text import Block, plain

if TYPE_CHECKING:
    from rich.live import Live

__all__ = ["Terminal"]


class Terminal:
    """A context manager; whatever ends it, the terminal is left as it was found. An interrupt ends it quietly."""

    def __init__(self, pretty: bool) -> None:
        """Args:
        pretty: the output is a terminal that can draw pictures over each other.
        """
        self._pretty = pretty
        self._live: Live | None = None
        self._stack = contextlib.ExitStack()
        self._shown = False

    def __enter__(self) -> Terminal:
        with self._stack as stack:
            if self._pretty:
                from rich.live import Live

                from .pretty import console

                stack.enter_context(_ended_by(signal.SIGTERM, signal.SIGHUP))
                if sys.stdin.isatty():
                    stack.enter_context(_single_keys(sys.stdin.fileno()))
                self._live = stack.enter_context(Live(console=console(), screen=True, auto_refresh=False))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._stack.close()
        return kind is KeyboardInterrupt  # ctrl-C is how one ends what goes on and on

    @property
    def is_live(self) -> bool:
        """Does somebody watch?"""
        return self._live is not None

    def show(self, blocks: Sequence[Block]) -> None:
        if self._live is None:
            click.echo(("\n" if self._shown else "") + plain(blocks))
        else:
            from .pretty import group

            self._live.update(group(blocks, self._live.console), refresh=True)
        self._shown = True

    def wait(self, seconds: float) -> bool:
        """Wait for some time, or until a key asks for the next picture. False: for the end."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if not (self.is_live and sys.stdin.isatty()):
                time.sleep(left)
            elif select.select([sys.stdin], [], [], left)[0]:
                pressed = os.read(sys.stdin.fileno(), 64)
                if not pressed or b"q" in pressed.lower():
                    return False
                if b" " in pressed:
                    return True
        return True


@contextlib.contextmanager
def _single_keys(fd: int) -> Iterator[None]:
    """Keys are there when they are pressed, and are not shown."""
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _ended_by(*signals: signal.Signals) -> Iterator[None]:
    """Have signals end the command by way of `finally`."""

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = [(number, signal.signal(number, end)) for number in signals]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
