"""The figures of ``GET /metrics`` for Prometheus, in a registry of their own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from .clients import Uploads
from .pool import Pool

_SECONDS = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 10, 30, 60, 120)


class Metrics:
    """The counters of one service; there are few routes, because they are the paths of the API."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "sprdiff_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "sprdiff_request_seconds",
            "From the head of a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._received = Counter(
            "sprdiff_received_bytes", "Bytes of bodies received.", ["route"], registry=registry
        )
        self._sent = Counter("sprdiff_sent_bytes", "Bytes of bodies sent.", ["route"], registry=registry)
        self._pixels = Counter("sprdiff_pixels", "Pixels of pictures coded.", ["route"], registry=registry)
        self._jobs = Histogram(
            "sprdiff_job_seconds",
            "From the start of a job on its thread to its end.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._uploads = Gauge("sprdiff_uploads", "Bodies that are received.", registry=registry)
        self._waiting = Gauge(
            "sprdiff_waiting", "Requests that are let in and wait.", ["pool"], registry=registry
        )
        self._busy = Gauge("sprdiff_busy", "Jobs that run.", ["pool"], registry=registry)
        self._workers = Gauge("sprdiff_workers", "Jobs that may run at once.", ["pool"], registry=registry)

    def watch(self, name: str, pool: Pool) -> None:
        """Include the figures of a pool."""
        self._waiting.labels(name).set_function(lambda: pool.waiting)
        self._busy.labels(name).set_function(lambda: pool.busy)
        self._workers.labels(name).set(pool.workers)

    def watch_uploads(self, uploads: Uploads) -> None:
        """Include how many bodies are being received."""
        self._uploads.set_function(lambda: uploads.busy)

    def answered(self, route: str, status: int, seconds: float, received: int, sent: int) -> None:
        """Count one request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        self._received.labels(route).inc(received)
        self._sent.labels(route).inc(sent)

    def worked(self, route: str, seconds: float, pixels: int) -> None:
        """Count one job that succeeded."""
        self._jobs.labels(route).observe(seconds)
        self._pixels.labels(route).inc(pixels)

    def text(self) -> bytes:
        """Return all figures in Prometheus's text format."""
        return generate_latest(self.registry)
