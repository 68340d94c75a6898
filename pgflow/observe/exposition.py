"""Families of meters as text that Prometheus reads. The only file that knows `prometheus_client`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pgflow.errors import PgflowError
from pgflow.observe.meters import Family

if TYPE_CHECKING:
    from prometheus_client.core import Metric


def require_client() -> None:
    """See that the library is there, before anything is started that would need it.

    Raises:
        PgflowError: it is not installed.
    """
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise PgflowError(
            "metrics need the library prometheus-client: install pgflow-engine[metrics], or leave out the port"
        ) from error


def exposition(families: Iterable[Family], accept: str) -> tuple[bytes, str]:
    """The text of a scrape and its content type.

    Args:
        families: what to write down; no two of one name.
        accept: the `Accept` header of whoever asks.

    Example:
        body, content_type = exposition(metrics.read(), "text/plain")
    """
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import CollectorRegistry

    encoder, content_type = choose_encoder(accept)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(list(families)))
    return encoder(registry), content_type


class _Collector:
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            yield _metric(family)

    def describe(self) -> Iterator[Metric]:
        return iter(())  # else it would be collected to be registered


def _metric(family: Family) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    labels = list(family.labels)
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.text, labels=labels)
        for sample in family.samples:
            *counts, total = sample.values
            buckets, so_far = [], 0.0
            for bound, count in zip((*family.bounds, math.inf), counts, strict=True):
                so_far += count
                buckets.append(("+Inf" if bound == math.inf else str(bound), so_far))
            histogram.add_metric(list(sample.labels), buckets, total)
        return histogram
    make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = make(family.name.removesuffix("_total"), family.text, labels=labels)
    for sample in family.samples:
        metric.add_metric(list(sample.labels), sample.values[0])
    return metric
