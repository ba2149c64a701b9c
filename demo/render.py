"""Renders the reference page of one module: the expensive function that is worth caching."""

import html
import os
import pydoc
import sys
import time

# The page itself, the release it shows, the process that rendered it, and when (monotonic seconds).
Page = tuple[bytes, int, int, float]

STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; width: 100% } td { vertical-align: top; padding: .1em .5em }
code, tt, .code { font-family: monospace } dt { margin-top: .8em } a { color: #175a9c; text-decoration: none }
footer { margin-top: 3em; color: #777 }
"""


def render(name: str, release: int) -> Page:
    """The page of the module `name`, by pydoc, which inspects every class and function of it anew."""
    documentation = pydoc.HTMLDoc().document(sys.modules[name], name)
    stamp = time.monotonic()
    text = (
        f"<!doctype html><html><head><meta charset=utf-8><title>{html.escape(name)}</title>"
        f"<style>{STYLE}</style></head><body>{documentation}"
        f"<footer>release {release}, rendered by process {os.getpid()}</footer></body></html>"
    )
    return text.encode("utf-8", "replace"), release, os.getpid(), stamp
