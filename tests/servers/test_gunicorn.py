"""What is gunicorn's own, beside the table: see test_modes.py."""

from __future__ import annotations

from tests.procs import until
from tests.servers.gunicorn import Gunicorn
from tests.servers.site import Site


def test_a_reload_with_another_version_in_the_configuration_resets_the_cache(site: Site) -> None:
    """`on_reload` of the example has the master, and so the workers it forks, read the configuration again."""
    with Gunicorn(site) as server:
        for path in ("/value/pages/key", "/value/kept/key"):
            assert server.get(path).good
        old = server.processes() - {server.master}
        site.configure(version=2)
        server.reload()
        until(lambda: server.processes().isdisjoint(old))
        server.wait_for_workers()
        for path in ("/value/pages/key", "/value/kept/key"):
            assert server.get(path).good
        assert site.observe("pages").version == 2
        assert site.computations("key", cache="pages") == {"key": 2}
        assert site.computations("key", cache="kept") == {"key": 2}


class Logging(Gunicorn):
    config = "logging.py"


def test_what_coopshm_has_to_say_goes_where_gunicorn_logs(site: Site) -> None:
    with Logging(site) as server:
        assert server.get("/value/kept/key").good
        until(lambda: f"/dev/shm/coopshm:{site.namespace}:pages): created" in server.log(), server.tail)
        until(lambda: f"/dev/shm/coopshm:{site.namespace}:kept): created" in server.log(), server.tail)


def test_without_that_it_is_quiet(site: Site) -> None:
    with Gunicorn(site) as server:
        assert server.get("/value/kept/key").good
    assert "coopshm" not in server.log()
