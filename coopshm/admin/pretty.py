"""The blocks of text.py for people: with colours and bars, by rich.

Imported only where there is a terminal to show them on, so nothing else pays for it. No text is ever taken for markup:
keys and versions are the application's.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.segment import Segment, Segments
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

from .text import Block, Cell, Line, plain

__all__ = ["STYLES", "console", "group", "show", "svg"]

#: What a style of text.py looks like.
STYLES = {
    "": "",
    "good": "green",
    "warn": "yellow",
    "bad": "bold red",
    "dim": "dim",
    "title": "bold",
    "key": "cyan",
}

_BAR_WIDTH = 10
_EIGHTHS = " ▏▎▍▌▋▊▉█"

#: Rows from which a table is too long to be looked at; laid out as plain text it is there at once.
_LONG = 1000


def console() -> Console:
    """Return a console for standard output."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=False)


def show(blocks: Sequence[Block]) -> None:
    """Print blocks to standard output."""
    here = console()
    for block in blocks:
        if isinstance(block, Line) or len(block.rows) <= _LONG:
            here.print(_rendered(block, _has_blocks(here)))
        else:
            print(plain([block]))


def group(blocks: Sequence[Block], to: Console) -> RenderableType:
    """Return blocks as one thing to be drawn."""
    return Group(*[_rendered(block, _has_blocks(to)) for block in blocks])


def _has_blocks(to: Console) -> bool:
    """Can the terminal show the characters that bars are drawn with?"""
    try:
        _EIGHTHS.encode(to.encoding)
    except (LookupError, UnicodeEncodeError):
        return False
    return not to.legacy_windows


def _rendered(block: Block, blocks: bool) -> RenderableType:
    if isinstance(block, Line):
        return Text(block.text, STYLES[block.style])
    last = len(block.header) - 1
    columns = [
        Column(
            Text(name, "bold"),
            justify="right" if side == "r" else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if at == last else None,
        )
        for at, (name, side) in enumerate(zip(block.header, block.align, strict=True))
    ]
    table = RichTable(
        *columns,
        box=None,
        padding=(0, 2, 0, 0),
        expand=True,
        title=Text(block.title, "bold") if block.title else None,
        title_justify="left",
        collapse_padding=True,
        pad_edge=False,
    )
    for row in block.rows:
        table.add_row(*[_cell(cell, blocks) for cell in row])
    return table


def _cell(cell: str | Cell, blocks: bool) -> Text:
    if isinstance(cell, str):
        return Text(cell)
    text = Text()
    if cell.share is not None:
        text.append_text(_bar(cell.share, STYLES[cell.style], blocks))
    text.append(cell.text, "" if cell.share is not None else STYLES[cell.style])
    return text


def _bar(share: float, style: str, blocks: bool) -> Text:
    if not blocks:
        full = round(share * _BAR_WIDTH)
        return Text(f"[{'#' * full}{'.' * (_BAR_WIDTH - full)}] ", style)
    eighths = round(share * _BAR_WIDTH * 8)
    if share > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, 8)
    drawn = "█" * full + (_EIGHTHS[rest] if rest else "")
    return Text.assemble((drawn.ljust(_BAR_WIDTH), f"{style} on grey23"), " ")


def svg(blocks: Sequence[Block], title: str, width: int = 136, lines: int = 0, name: str | None = None) -> str:
    """Return blocks as a picture of a terminal, an SVG document that refers to nothing outside itself.

    Args:
        width: of the terminal, in characters.
        lines: of the terminal; 0 for as many as there are.
        name: what its styles are called; for who puts several pictures into one document.
    """
    recorder = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    drawn = recorder.render_lines(group(blocks, recorder))
    for line in drawn[: lines or None]:
        recorder.print(Segments([*line, Segment.line()]), end="")
    for _ in range(lines - len(drawn)):
        recorder.print()
    document = recorder.export_svg(title=title, unique_id=name)
    return re.sub(r"@font-face \{.*?\}\s*", "", document, flags=re.DOTALL)  # they would be fetched from the network
