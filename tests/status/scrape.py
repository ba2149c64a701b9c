"""Metrics text taken apart by parsers that are not ours: prometheus_client's, and Prometheus's own promtool."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from tests.procs import WATCHDOG
from tests.status import tool


class Scrape:
    """A text with metrics, by name and labels."""

    def __init__(self, text: str, parse: object = openmetrics) -> None:
        self.families: dict[str, Metric] = {}
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in prometheus(text) if parse is prometheus else openmetrics(text):
            assert family.name not in self.families
            self.families[family.name] = family
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.samples, "said twice"
                self.samples[key] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """The one sample with this name and at least these labels."""
        found = self.all(name, **labels)
        assert len(found) == 1, f"{name} {labels}: {found}"
        return next(iter(found.values()))

    def all(self, name: str, **labels: str) -> Mapping[frozenset[tuple[str, str]], float]:
        return {
            have: value
            for (called, have), value in self.samples.items()
            if called == name and labels.items() <= dict(have).items()
        }


def promtool(*arguments: str, text: str = "") -> None:
    """Have promtool check something."""
    command = [tool("promtool"), *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=WATCHDOG, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


__all__ = ["Scrape", "openmetrics", "prometheus", "promtool"]
