"""Metrics for Prometheus and whatever else reads OpenMetrics: `pip install coopshm[metrics]`.

    prometheus_client.REGISTRY.register(coopshm.metrics.Collector())

One process's answer is that of all processes: the numbers are read from the segments' rows, where the processes
count. So there is nothing to merge and no directory of files, whichever worker is asked; and `coopshm-admin metrics`
or `serve`, outside of the application, says the same.

Names and labels follow that ecosystem's conventions. Each metric has the labels `namespace` and `cache`. What is
counted is counted since the segment was created, which `_created` tells, and outlives the processes that counted; it
begins anew only with a new segment (the cache was destroyed, or it was created with other settings).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version as release
from typing import NamedTuple

from . import config as _config
from .errors import shorten_text
from .objects import Place
from .stats import Histogram
from .status.look import Look, Numbers, Watch
from .versions import encode_version

try:
    from prometheus_client import CollectorRegistry, exposition
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        InfoMetricFamily,
        Metric,
    )
    from prometheus_client.openmetrics import exposition as openmetrics
    from prometheus_client.registry import Collector as _Base
    from prometheus_client.utils import floatToGoString
except ImportError as exc:
    raise ImportError("coopshm.metrics needs the package prometheus_client: pip install 'coopshm[metrics]'") from exc

__all__ = ["Collector", "expose", "families", "openmetrics_text", "prometheus_text"]

#: Longer versions are cut: a label is no place for a kilobyte.
_LONGEST_VERSION = 128

_LABELS = ("namespace", "cache")


class _Counter(NamedTuple):
    name: str
    help: str
    #: By the value of its label, the fields of `Stats`. A counter without a label has one field, under "".
    fields: Mapping[str, str]
    label: str = ""


class _Gauge(NamedTuple):
    name: str
    help: str
    value: Callable[[Numbers], float]


class _Histogram(NamedTuple):
    name: str
    help: str
    value: Callable[[Numbers], Histogram]


_COUNTERS = (
    _Counter(
        "coopshm_hits",
        "Look-ups that were answered: from shared memory, or from what the process keeps of it (hot).",
        {"shared": "hits", "hot": "hot_hits"},
        "kind",
    ),
    _Counter("coopshm_misses", "Calls that found nothing stored.", {"": "misses"}),
    _Counter("coopshm_computations", "Times that a caller was to compute a value.", {"": "computations"}),
    _Counter("coopshm_waits", "Times that a caller waited for another's computation.", {"": "waits"}),
    _Counter("coopshm_timeouts", "Calls that had waited as long as they would.", {"": "timeouts"}),
    _Counter("coopshm_failures", "Computations that raised an exception.", {"": "failures"}),
    _Counter("coopshm_takeovers", "Computations taken over from a process that died.", {"": "takeovers"}),
    _Counter("coopshm_stale_results", "Results dropped because of a reset.", {"": "stale"}),
    _Counter("coopshm_uncached_results", "Results that were not to be stored (NoCache).", {"": "uncached"}),
    _Counter("coopshm_lost_outcomes", "Results that went before all who waited had them.", {"": "lost_outcomes"}),
    _Counter("coopshm_stored_entries", "Entries written.", {"": "stored"}),
    _Counter("coopshm_stored_bytes", "Bytes of the arena that they took.", {"": "stored_bytes"}),
    _Counter("coopshm_stranded_bytes", "Arena space that was lost until the next reset.", {"": "stranded_bytes"}),
    _Counter("coopshm_resets", "Resets that took effect.", {"": "resets"}),
    _Counter("coopshm_lock_steals", "Times that the write lock was taken from a process that died.", {"": "steals"}),
)

_GAUGES = (
    _Gauge("coopshm_generation", "Grows by one with each reset.", lambda of: of.stats.generation),
    _Gauge("coopshm_reset_timestamp_seconds", "When the generation began.", lambda of: of.stats.reset_at),
    _Gauge("coopshm_entries", "Entries stored.", lambda of: of.stats.entries),
    _Gauge("coopshm_entries_limit", "Entries that there may be.", lambda of: of.stats.max_items),
    _Gauge("coopshm_used_bytes", "Bytes of the arena that entries take.", lambda of: of.stats.bytes_used),
    _Gauge("coopshm_limit_bytes", "Bytes that entries may take.", lambda of: of.stats.memory_limit),
    _Gauge("coopshm_reserved_bytes", "Bytes of /dev/shm that it takes.", lambda of: of.stats.reserved_bytes),
    _Gauge("coopshm_pinned_bytes", "Bytes that cannot be reused: views hold them.", lambda of: of.stats.pinned_bytes),
    _Gauge("coopshm_full", "1 if a value was refused for lack of room since the last reset.", lambda of: of.stats.full),
    _Gauge("coopshm_processes", "Processes that are attached.", lambda of: of.stats.processes),
    _Gauge("coopshm_flights", "Computations under way.", lambda of: of.stats.flights),
    _Gauge("coopshm_waiters", "Threads that wait for a computation.", lambda of: of.stats.waiters),
    _Gauge(
        "coopshm_oldest_flight_seconds", "Age of the oldest computation under way.", lambda of: of.oldest_flight_seconds
    ),
    _Gauge("coopshm_computation_max_seconds", "The longest computation there was.", lambda of: of.stats.compute.max),
)

_HISTOGRAMS = (
    _Histogram("coopshm_computation_seconds", "How long computations took.", lambda of: of.stats.compute),
    _Histogram("coopshm_wait_seconds", "How long callers waited for another's computation.", lambda of: of.stats.wait),
)


def families(looks: Sequence[Look]) -> Iterator[Metric]:
    """Return what the looks show, as prometheus_client's metric families."""
    yield InfoMetricFamily("coopshm_build", "The release that reads the numbers.", {"version": release("coopshm")})
    up = GaugeMetricFamily("coopshm_up", "1 if the cache's segment can be read.", labels=_LABELS)
    for look in looks:
        up.add_metric(look.place, look.numbers is not None)
    yield up
    seen = [(look.place, look.numbers) for look in looks if look.numbers is not None]
    yield _info(seen)
    for gauge in _GAUGES:
        family = GaugeMetricFamily(gauge.name, gauge.help, labels=_LABELS, unit=_unit(gauge.name))
        for place, numbers in seen:
            family.add_metric(place, float(gauge.value(numbers)))
        yield family
    for counter in _COUNTERS:
        labels = [*_LABELS, counter.label] if counter.label else _LABELS
        counted = CounterMetricFamily(counter.name, counter.help, labels=labels, unit=_unit(counter.name))
        for place, numbers in seen:
            for value, field in counter.fields.items():
                label = [value] if counter.label else []
                counted.add_metric([*place, *label], getattr(numbers.stats, field), created=numbers.stats.created_at)
        yield counted
    yield _bypasses(seen)
    for histogram in _HISTOGRAMS:
        yield _distribution(histogram, seen)


def _bound(seconds: float) -> str:
    return str(floatToGoString(seconds))  # type: ignore[no-untyped-call]


_Seen = Sequence[tuple[Place, Numbers]]


def _unit(name: str) -> str:
    return next((unit for unit in ("bytes", "seconds") if name.endswith(f"_{unit}")), "")


def _info(seen: _Seen) -> Metric:
    info = InfoMetricFamily("coopshm_cache", "The version of the source that the cache has values of.", labels=_LABELS)
    for place, numbers in seen:
        version = shorten_text(encode_version(numbers.stats.version).decode(), _LONGEST_VERSION)
        info.add_metric(place, {"version": version})
    return info


def _bypasses(seen: _Seen) -> Metric:
    family = CounterMetricFamily(
        "coopshm_bypasses", "Calls that were answered without the cache, by cause.", labels=[*_LABELS, "cause"]
    )
    for place, numbers in seen:
        for cause, number in numbers.stats.bypasses.items():
            family.add_metric([*place, cause], number, created=numbers.stats.created_at)
    return family


def _distribution(histogram: _Histogram, seen: _Seen) -> Metric:
    family = HistogramMetricFamily(histogram.name, histogram.help, labels=_LABELS, unit="seconds")
    for place, numbers in seen:
        times = histogram.value(numbers)
        buckets = [(_bound(bound), float(below)) for bound, below in times.buckets]
        family.add_metric(place, buckets, sum_value=times.sum)
        family.add_sample(f"{histogram.name}_created", place._asdict(), numbers.stats.created_at)
    return family


class Collector(_Base):
    """Gives the metrics of caches to a registry of prometheus_client."""

    def __init__(self, namespace: str | None = None, caches: Sequence[str] = ()) -> None:
        """Args:
        namespace: whose caches. Default: that of the configuration.
        caches: their names. Default: all that exist when the metrics are asked for.
        """
        self._watch = Watch(namespace if namespace is not None else _configured_namespace(), caches)

    def describe(self) -> list[Metric]:
        """Nothing: whoever registers this need not have any cache yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        return families(self._watch.looks())


def _configured_namespace() -> str:
    import coopshm

    return (coopshm._configured or _config.load()).namespace


class _Once(_Base):
    """Looks that were taken already."""

    def __init__(self, looks: Sequence[Look]) -> None:
        self._looks = looks

    def collect(self) -> Iterator[Metric]:
        return families(self._looks)


def _registry(looks: Sequence[Look]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(looks))
    return registry


def openmetrics_text(looks: Sequence[Look]) -> bytes:
    """Return the looks as OpenMetrics text (`application/openmetrics-text; version=1.0.0`)."""
    return bytes(openmetrics.generate_latest(_registry(looks)))  # type: ignore[no-untyped-call]


def prometheus_text(looks: Sequence[Look]) -> bytes:
    """Return the looks as Prometheus's own text (`text/plain; version=0.0.4`)."""
    return exposition.generate_latest(_registry(looks))


def expose(looks: Sequence[Look], accept: str) -> tuple[bytes, str]:
    """Return the looks in the format that an Accept header asks for, and its media type."""
    encoder, type = exposition.choose_encoder(accept)
    return encoder(_registry(looks)), type
