"""Prometheus metrics that many processes count together, and how they are written out."""

import functools
import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

REQUESTS = Histogram(
    "keyserver_http_request_duration_seconds",
    "Requests by method, route and status",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
BLOCKS_APPLIED = Counter("keyserver_blocks_applied_total", "Blocks applied", ["chain", "network"])
BLOCK_FAILURES = Counter(
    "keyserver_block_failures_total",
    "Blocks that could not be fetched or applied and are retried",
    ["chain", "network"],
)
BLOCK_STUCK = Gauge(
    "keyserver_block_stuck",
    "1 while the same block keeps failing: an operator is needed",
    ["chain", "network"],
    multiprocess_mode="mostrecent",
)
NODE_CHANGES = Counter("keyserver_node_changes_total", "Nodes that another took over from", ["chain", "network"])
REORGS = Counter("keyserver_reorgs_total", "Forks followed", ["chain", "network"])
WEBHOOK_ATTEMPTS = Counter("keyserver_webhook_attempts_total", "Webhook attempts by outcome", ["outcome"])
PRICE_FETCHES = Counter("keyserver_price_fetches_total", "Price source fetches by outcome", ["source", "outcome"])
UPSTREAM_ATTEMPTS = Counter(
    "keyserver_upstream_attempts_total", "Calls sent to upstreams, by what came of them", ["upstream", "outcome"]
)
UNSETTLED_CALLS = Gauge(
    "keyserver_unsettled_calls",
    "Calls answered while the database was away, kept on this machine's disk until they are charged",
    multiprocess_mode="mostrecent",
)
LEDGER_DISCREPANCIES = Gauge(
    "keyserver_ledger_discrepancies",
    "Balances that are not the sum of their lines, held credit that is not its holds, an unbalanced trial balance",
    multiprocess_mode="mostrecent",
)
HOLDS_EXPIRED = Counter("keyserver_holds_expired_total", "Holds that expired: calls that were perhaps never billed")
TASK_FAILURES = Counter("keyserver_task_failures_total", "Background tasks that failed and were restarted", ["task"])

#: (name, help, [(labels, value)]) of a gauge that is read from the database when asked.
Gauges = tuple[str, str, list[tuple[dict[str, str], float]]]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@functools.lru_cache(maxsize=1024)
def _requests(method: str, route: str, status: int) -> Histogram:
    return REQUESTS.labels(method, route, str(status))


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """Counts one request; routes are templates, so that their number is bounded."""
    _requests(method, route, status).observe(seconds)


def forget_process(pid: int) -> None:
    """Drops the live gauges of a child that has ended."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]


def render(*, database_gauges: list[Gauges]) -> bytes:
    """Every counter of every process, then gauges read from the database: (name, help, [(labels, value)])."""
    registry = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        counters = generate_latest(registry)
    else:
        counters = generate_latest()
    gauges = CollectorRegistry()
    for name, text, samples in database_gauges:
        if not samples:  # a gauge without labels would say 0 of something that is not there
            continue
        labels = sorted({label for labelled, _ in samples for label in labelled})
        gauge = Gauge(name, text, labels, registry=gauges)
        for labelled, value in samples:
            (gauge.labels(**labelled) if labels else gauge).set(value)
    return counters + generate_latest(gauges)
