"""Where bench.prepare leaves word of what could not be installed: peer or distribution -> the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["NOT_INSTALLED"]

NOT_INSTALLED: Final = Path(__file__).parent.parent.parent / "build" / "bench" / "not-installed.json"
