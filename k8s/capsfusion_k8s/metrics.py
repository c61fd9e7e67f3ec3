"""Prometheus metrics. Counters start at 0 with each process; the gauge shows current phases."""

from prometheus_client import Counter, Gauge, Histogram

from capsfusion_k8s.store import Key

requests = Counter("capsfusion_operator_api_requests", "Requests to the API server.", ["verb", "kind"])
transitions = Counter("capsfusion_operator_transitions", "Phase transitions of runs.", ["from_phase", "to_phase"])
errors = Counter("capsfusion_operator_errors", "Reconciliations that failed and were retried.")
seconds = Histogram("capsfusion_operator_look_seconds", "Seconds per round of a reconciliation, requests included.")
_runs = Gauge("capsfusion_training_runs", "Runs by phase.", ["namespace", "phase"])
_known: dict[Key, str] = {}


def phase(key: Key, now: str) -> None:
    """Record the current phase of a run."""
    before = _known.get(key)
    if before != now:
        forget(key)
        _known[key] = now
        _runs.labels(key[0], now).inc()


def forget(key: Key) -> None:
    """Remove a run from the gauge."""
    before = _known.pop(key, None)
    if before is not None:
        _runs.labels(key[0], before).dec()
