"""gunicorn that root starts and whose workers are somebody else (`user`, `group`)."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import SHM
from tests.servers import checks
from tests.servers.gate import Gate
from tests.servers.gunicorn import Gunicorn
from tests.servers.site import Site

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="expected: only root can drop privileges")


class Dropped(Gunicorn):
    """The master has imported the application, since the workers may not be allowed to read this Python."""

    def __init__(self, site: Site, arguments: Sequence[str] = ()) -> None:
        dropped = ["--user", str(NOBODY), "--group", str(NOBODY), "--preload"]
        super().__init__(site, [*dropped, *arguments])


@pytest.fixture
def open_site(namespace: str, gate: Gate) -> Iterator[Site]:
    """A site where anybody may write; pytest's own directories are root's."""
    directory = Path(tempfile.mkdtemp(prefix="coopshm-servers-"))
    try:
        directory.chmod(0o777)
        records = directory / "records"
        records.touch()
        records.chmod(0o666)
        site = Site(directory, namespace, gate)
        # The worker may not be allowed to read this Python, and gunicorn's imports this one after it has become nobody.
        (directory / "release.py").write_text("import hashlib\n\nCODE = 1\n")
        yield site
    finally:
        shutil.rmtree(directory)


def _owner(site: Site, cache: str) -> int:
    return (SHM / f"coopshm:{site.namespace}:{cache}").stat().st_uid


@pytest.mark.parametrize("check", [checks.stampede, checks.reset, checks.kill, checks.reload])
def test_the_workers_do_everything_with_the_cache_that_root_opened(check: object, open_site: Site) -> None:
    assert callable(check)
    check(functools.partial(Dropped, open_site))
    assert _owner(open_site, "pages") == 0


def test_a_cache_that_the_workers_open_is_theirs(open_site: Site) -> None:
    with Dropped(open_site) as server:
        assert server.get("/value/kept/key").good
        assert (_owner(open_site, "pages"), _owner(open_site, "kept")) == (0, NOBODY)


def test_with_user_set_all_caches_are_theirs(open_site: Site) -> None:
    """Then it does not matter who opens a cache first, nor who starts the server the next time."""
    open_site.configure(extra=f"user = {NOBODY}\n")
    with Dropped(open_site) as server:
        assert server.get("/value/kept/key").good
        assert (_owner(open_site, "pages"), _owner(open_site, "kept")) == (NOBODY, NOBODY)
