"""Prometheus metrics. Counters start at 0 with each process; gauges show the current state of the runs there are."""

from datetime import datetime

from prometheus_client import Counter, Gauge, Histogram

from capsfusion_k8s.cluster.store import Key
from capsfusion_k8s.planning.goodput import ALL, DOING, accounted
from capsfusion_k8s.run import Run

requests = Counter("capsfusion_operator_api_requests", "Requests to the API server.", ["verb", "kind"])
transitions = Counter("capsfusion_operator_transitions", "Phase transitions of runs.", ["from_phase", "to_phase"])
errors = Counter("capsfusion_operator_errors", "Reconciliations that failed and were retried.")
seconds = Histogram("capsfusion_operator_look_seconds", "Seconds per round of a reconciliation, requests included.")
_RUN = ["namespace", "run"]
_runs = Gauge("capsfusion_training_runs", "Runs by phase.", ["namespace", "phase"])
_doing = Gauge("capsfusion_training_seconds", "Seconds of a run by what it was doing (goodput).", [*_RUN, "doing"])
_step = Gauge("capsfusion_training_step", "Step of a run.", _RUN)
_saved = Gauge("capsfusion_training_checkpoint_step", "Step of the last complete checkpoint of a run.", _RUN)
_restarts = Gauge("capsfusion_training_restarts", "Restarts of a run after a crash.", _RUN)
_gpu_hours = Gauge("capsfusion_training_gpu_hours", "GPU-hours of a run, from all its pods running.", _RUN)
_of_a_run = (_step, _saved, _restarts, _gpu_hours)
_known: dict[Key, str] = {}
for _phase in DOING:  # a counter that begins with its first failure shows no increase
    transitions.labels(_phase, "Failed")


def observe(key: Key, run: Run, now: datetime) -> None:
    """Record the current state of a run."""
    before = _known.get(key)
    if before != run.phase:
        if before is not None:
            _runs.labels(key[0], before).dec()
        _known[key] = run.phase
        _runs.labels(key[0], run.phase).inc()
    goodput, status = accounted(run, now), run.status
    for doing in goodput.keys() & set(ALL):
        _doing.labels(*key, doing).set(goodput[doing])
    values = (
        status.get("progress", {}).get("step"), status.get("checkpoint", {}).get("step"), status.get("restarts"),
        goodput.get("gpuHours"),
    )  # fmt: skip
    for gauge, value in zip(_of_a_run, values, strict=True):
        if value is not None:
            gauge.labels(*key).set(value)


def forget(key: Key) -> None:
    """Remove a run from the gauges."""
    before = _known.pop(key, None)
    if before is not None:
        _runs.labels(key[0], before).dec()
    for gauge in (*_of_a_run, _doing):
        gauge.remove_by_labels(dict(zip(_RUN, key, strict=True)))
