"""The metrics, and the status page in a real browser.

browser.py        headless Chromium, spoken to over a pipe
test_metrics.py   what a monitoring system reads, checked by parsers that are not ours
test_dashboard.py the Grafana dashboard asks for what there is
test_look.py      caches come and go while somebody looks at them
test_page.py      the application: what it answers, and to whom
test_serve.py     coopshm-admin serve beside a live gunicorn
test_browser.py   what a person sees
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

#: Where `make tools` unpacks what it does not install.
TOOLS = Path(__file__).parents[2] / "build" / "tools" / "usr" / "bin"


def tool(*names: str) -> str:
    """The path of a program that has one of these names. Skips the test if there is none."""
    found = [shutil.which(name, path=f"{os.environ['PATH']}:{TOOLS}") for name in names]
    return next((path for path in found if path), None) or skip(names[0])


def skip(name: str) -> NoReturn:
    """Skip the test: it drives a program that is not here. In CI, where `make tools` brings it, that is a failure."""
    expected = "" if os.environ.get("CI") == "true" else "expected: "
    pytest.skip(f"{expected}{name} is not installed; see `make tools`")
