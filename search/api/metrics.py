"""The server's counters, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TEXTS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "panlingua_requests", "Requests", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "panlingua_request_seconds", "Seconds a request took", ("route",), buckets=_SECONDS, registry=self._registry
        )
        self._batch = Histogram(
            "panlingua_encoded_texts", "Queries encoded together", buckets=_TEXTS, registry=self._registry
        )
        self._gauges: dict[str, Gauge] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered. `route` is the path's template, so that ids make no new series."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_batch(self, texts: int) -> None:
        """Count a batch of the encoder."""
        self._batch.observe(texts)

    def watch(self, name: str, help: str, value: Callable[[], float]) -> None:
        """Report what `value` gives whenever the counters are read."""
        gauge = Gauge(f"panlingua_{name}", help, registry=self._registry)
        gauge.set_function(value)
        self._gauges[name] = gauge

    def text(self) -> bytes:
        """All counters in the text format."""
        return generate_latest(self._registry)
