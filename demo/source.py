"""The source of the pages: which modules there are, and which documentation release is current.

The release is a number in a small file, as a data set's version might be; publishing a new one makes every
page of an older one out of date. Each computation of a page is noted in a log, so that they can be counted.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

# Present from Python 3.10 to 3.13, and harmless to import.
MODULES: tuple[str, ...] = tuple(
    """
    abc argparse array ast asyncio base64 bisect calendar cmath cmd code codecs collections configparser
    contextlib copy csv dataclasses datetime decimal difflib dis doctest email.message enum fileinput
    fractions ftplib functools gc getopt glob gzip hashlib heapq hmac html.parser http.cookies inspect io
    ipaddress itertools json locale logging mailbox math mimetypes multiprocessing numbers operator
    optparse os pathlib pdb pickle platform plistlib pprint queue random re sched secrets selectors shlex
    shutil signal smtplib socket statistics string struct subprocess tempfile textwrap threading tokenize
    traceback types typing uuid weakref zipfile
    """.split()
)


def directory() -> Path:
    """Where this run keeps its files: $DEMO_DIR."""
    return Path(os.environ["DEMO_DIR"])


class Computation(NamedTuple):
    """One rendering of a page. Times are seconds on the monotonic clock, which all processes share."""

    name: str
    release: int
    asked: float  # when the request turned to the cache
    began: float  # when the rendering that followed from it began


def release() -> int:
    """The current documentation release."""
    number = json.loads((directory() / "release.json").read_text(encoding="ascii"))["release"]
    assert isinstance(number, int)
    return number


def publish(number: object, where: Path | None = None) -> None:
    """Makes `number` the current release, in one step. coopshm calls this on a reset: see coopshm.toml."""
    where = where or directory()
    draft = where / f"release.{os.getpid()}"
    draft.write_text(json.dumps({"release": number}), encoding="ascii")
    draft.replace(where / "release.json")


def note(computation: Computation) -> None:
    """Adds a line to the log; one write with O_APPEND, so lines of several processes do not mix."""
    log = os.open(directory() / "computations.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(log, (json.dumps(computation) + "\n").encode("ascii"))
    finally:
        os.close(log)


def computations(where: Path | None = None) -> list[Computation]:
    """All computations so far, in the order of their beginnings."""
    with ((where or directory()) / "computations.log").open(encoding="ascii") as log:
        return [Computation(*json.loads(line)) for line in log]
