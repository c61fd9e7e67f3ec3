"""What Prometheus scrapes. Counters are of this process; phases are of now."""

from prometheus_client import Counter, Gauge, Histogram

from capsfusion_k8s.store import Key

requests = Counter("capsfusion_operator_api_requests", "Requests to the API server.", ["verb", "kind"])
transitions = Counter(
    "capsfusion_operator_transitions", "Phases that runs left and entered.", ["from_phase", "to_phase"]
)
errors = Counter("capsfusion_operator_errors", "Looks at a run that failed and were repeated.")
seconds = Histogram("capsfusion_operator_look_seconds", "Time of a look at a run, requests included.")
_runs = Gauge("capsfusion_training_runs", "Runs by phase.", ["namespace", "phase"])
_known: dict[Key, str] = {}


def phase(key: Key, now: str) -> None:
    """A run is in a phase."""
    before = _known.get(key)
    if before != now:
        forget(key)
        _known[key] = now
        _runs.labels(key[0], now).inc()


def forget(key: Key) -> None:
    """A run is gone."""
    before = _known.pop(key, None)
    if before is not None:
        _runs.labels(key[0], before).dec()
