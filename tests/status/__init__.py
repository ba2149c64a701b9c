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
from typing import NoReturn

import pytest


def skip(tool: str) -> NoReturn:
    """Skip the test: it drives a tool that is not here. In CI, where `make tools` installs it, that is a failure."""
    expected = "" if os.environ.get("CI") == "true" else "expected: "
    pytest.skip(f"{expected}{tool} is not installed; see `make tools`")
