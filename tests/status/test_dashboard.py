"""The Grafana dashboard: its structure, and that a real Prometheus has an answer to everything it asks."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

import coopshm
from coopshm import metrics
from coopshm.status.look import Watch
from tests.procs import WATCHDOG, until
from tests.status import tool
from tests.status.scrape import Scrape, promtool
from tests.status.test_serve import serve

DOCS = Path(__file__).parents[2] / "docs"
OPERATING = (DOCS / "operating.md").read_text()
DASHBOARD = json.loads((DOCS / "grafana" / "coopshm.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

#: What Grafana puts in the place of its variables.
VARIABLES = {"$namespace": ".*", "$cache": ".*", "$__rate_interval": "1m", "$__interval": "15s"}

#: What happens in no short test. (That there are such metrics is checked all the same.)
QUIET = {"Bypasses by cause"}


def filled(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


def queries() -> list[tuple[str, str]]:
    """What it asks for: titles and expressions, annotations included."""
    found = [(panel["title"], filled(target["expr"])) for panel in PANELS for target in panel["targets"]]
    annotations = DASHBOARD["annotations"]["list"]
    return found + [(one["name"], filled(one["expr"])) for one in annotations if "expr" in one]


def names(query: str) -> set[str]:
    return set(re.findall(r"\bcoopshm_\w+", query))


def test_panels_are_what_grafana_expects() -> None:
    assert DASHBOARD["id"] is None, "else an import would look for a dashboard of that number"
    assert DASHBOARD["uid"] == "coopshm"
    assert DASHBOARD["schemaVersion"] >= 36
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert all(x < 24 for x, _ in cells)
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
    for panel in PANELS:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs) > 0
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])


def test_its_variables_are_defined() -> None:
    defined = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([DASHBOARD["panels"], DASHBOARD["annotations"]])))
    assert used - {"__rate_interval", "__interval"} == {"datasource", "namespace", "cache"} == set(defined)
    for name in ("namespace", "cache"):
        assert re.fullmatch(rf"label_values\(coopshm_up.*, {name}\)", defined[name]["query"]["query"])


def test_every_metric_is_one_that_there_is(cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    cache().cached("a", lambda: 1)
    there = {name for name, _ in Scrape(metrics.openmetrics_text(Watch(namespace).looks()).decode()).samples}
    for title, query in queries():
        assert names(query), title
        assert names(query) <= there, title


def alerts() -> list[str]:
    """What the docs say is worth an alert."""
    return [match[1] for match in re.finditer(r"- \{alert: \w+, expr: (.+?)(?:, for: \w+)?\}", OPERATING)]


def test_the_docs_name_the_metrics_that_there_are(cache: Callable[..., coopshm.Cache], namespace: str) -> None:
    cache().cached("a", lambda: 1)
    seen = Scrape(metrics.openmetrics_text(Watch(namespace).looks()).decode())
    suffix = {"counter": "_total", "info": "_info"}
    there = {name + suffix.get(family.type, "") for name, family in seen.families.items()}
    table = OPERATING[OPERATING.index("## Metrics") : OPERATING.index("## Status page")]
    assert set(re.findall(r"`(coopshm_\w+)(?:\{\w+\})?`", table)) == there
    assert len(alerts()) > 3
    assert all(names(alert) <= there for alert in alerts())


def test_every_query_is_promql(tmp_path: Path) -> None:
    asked = [query for _, query in queries()] + alerts()
    rules = [{"record": f"query_{at}", "expr": query} for at, query in enumerate(asked)]
    path = tmp_path / "rules.json"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", "--lint=none", str(path))


# ---- a real Prometheus


class Prometheus:
    """A server that scrapes one target; asked by its API."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, **query: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WATCHDOG)
        try:
            connection.request("GET", f"/api/v1/{path}?{urlencode(query)}")
            response = connection.getresponse()
            if response.status == 503:
                raise ConnectionError("it has not started yet")
            return json.loads(response.read())
        finally:
            connection.close()

    def ask(self, query: str) -> list[dict[str, Any]]:
        answer = self.get("query", query=query)
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def until(self, query: str) -> list[dict[str, Any]]:
        deadline = time.monotonic() + WATCHDOG
        while True:
            try:
                if found := self.ask(query):
                    return found
            except OSError:
                pass
            assert time.monotonic() < deadline, f"no answer to {query}"
            time.sleep(0.1)


@pytest.fixture
def prometheus(namespace: str, tmp_path: Path) -> Iterator[Prometheus]:
    command = tool("prometheus")
    with serve(namespace) as (target, _):
        scrape = {"job_name": "coopshm", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
        config = {"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": [scrape]}
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))
        arguments = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
        process = subprocess.Popen(
            [command, *arguments, "--web.listen-address=127.0.0.1:0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stderr is not None
            listens = (re.search(r'"Listening on" address=127\.0\.0\.1:(\d+)', line) for line in process.stderr)
            yield Prometheus(int(next(match for match in listens if match)[1]))
            assert process.poll() is None, process.stderr.read()
        finally:
            process.kill()
            process.communicate()


def test_prometheus_has_an_answer_to_every_query(
    prometheus: Prometheus, cache: Callable[..., coopshm.Cache], namespace: str
) -> None:
    mine = cache(hot_objects=False)
    mine.reset("spring")
    for key in range(40):
        mine.cached(key % 20, lambda: 1)
    # Rates need two scrapes; so does the growth of a counter.
    prometheus.until('coopshm_hits_total{kind="shared"} == 20')
    for key in range(40):
        mine.cached(key, lambda: 1)
    prometheus.until('coopshm_hits_total{kind="shared"} == 40')
    prometheus.until("rate(coopshm_computation_seconds_count[1m]) > 0")
    for title, query in queries():
        # Until: a scrape that fails on a busy machine leaves nothing to show before the next one.
        _ = prometheus.ask(query) if title in QUIET else prometheus.until(query)
    (hits,) = prometheus.until("coopshm_hits_total{kind='shared'}")
    assert hits["metric"].items() >= {"namespace": namespace, "cache": "c", "kind": "shared"}.items()
    kinds = {"coopshm_computation_seconds": "histogram", "coopshm_entries": "gauge"}
    for name, kind in kinds.items():
        until(lambda name=name: prometheus.get("metadata", metric=name)["data"])
        assert prometheus.get("metadata", metric=name)["data"][name][0]["type"] == kind
    (resets,) = prometheus.until("coopshm_reset_timestamp_seconds * 1000")
    assert abs(float(resets["value"][1]) - mine.stats().reset_at * 1000) < 1000
