"""Two releases of an application run side by side on one host, each with a namespace of its own: see shop@.service."""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SHM
from tests.servers.gate import Gate
from tests.servers.gunicorn import Gunicorn
from tests.servers.site import EXAMPLES, Site

UNIT = EXAMPLES / "systemd" / "shop@.service"


def namespace_of(release: str) -> str:
    """The namespace that the unit gives to a release."""
    unit = configparser.RawConfigParser()
    unit.read(UNIT)
    variable, _, value = unit["Service"]["Environment"].partition("=")
    assert variable == "COOPSHM_NAMESPACE"
    return value.replace("%i", release)


class Released(Gunicorn):
    """As the unit starts it: the configuration is the same for all releases, the environment says which it is."""

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "COOPSHM_NAMESPACE": self.site.namespace}


@pytest.fixture
def releases(tmp_path: Path, namespace: str, gate: Gate) -> Iterator[list[Site]]:
    sites = []
    for release in ("2026-11", "2026-12"):
        directory = tmp_path / release
        directory.mkdir()
        site = Site(directory, namespace, gate)  # what coopshm.toml says
        site.namespace = namespace_of(f"{namespace}-{release}")
        sites.append(site)
    yield sites
    for site in sites:
        for path in SHM.glob(f"coopshm:{site.namespace}:*"):
            path.unlink()


def test_each_release_sees_only_its_own(releases: list[Site]) -> None:
    old, new = releases
    assert old.namespace != new.namespace
    with Released(new) as newer:
        with Released(old) as older:
            for server in (older, newer):
                for cache in ("pages", "kept"):
                    assert server.get(f"/value/{cache}/key").body["by"] in server.processes()
            assert newer.post("/reset/pages").good
            assert older.get("/value/pages/key").body["version"] == 1
            assert newer.get("/value/pages/key").body["version"] == 2
            assert (old.observe("pages").resets, new.observe("pages").resets) == (0, 1)
        assert newer.get("/value/kept/key").good
        assert old.computations("key", cache="kept") == new.computations("key", cache="kept") == {"key": 1}
        assert old.computations("key") == {"key": 1}
        assert new.computations("key") == {"key": 2}
        assert new.objects() == old.objects() == {"pages", "kept"}
