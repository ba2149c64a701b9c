"""What the processes of a soak write down (events.py)."""

from __future__ import annotations

import os
from pathlib import Path

from .events import Log


def test_an_event_whose_process_was_killed_in_the_middle_spoils_no_other(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for number in range(3):
        log.write("call", key=number)
        os.write(log._fd, b'{"event":"call","key":9')
    log.write("died", who="n1/1")
    os.write(log._fd, b'{"event":"ca')
    log.close()
    assert list(log.read()) == [
        {"event": "call", "key": 0},
        {"event": "call", "key": 1},
        {"event": "call", "key": 2},
        {"event": "died", "who": "n1/1"},
    ]
