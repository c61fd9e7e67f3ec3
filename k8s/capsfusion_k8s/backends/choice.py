"""Choose the backend of a run by what the cluster has. Pure."""

from typing import NamedTuple

from capsfusion_k8s.backends import BACKENDS, PYTORCHJOB, TRAINJOB
from capsfusion_k8s.run import Run


class Choice(NamedTuple):
    """The backend's name, or None if the run must wait for one; with a reason for programs and one for people."""

    backend: str | None
    reason: str
    message: str


def choose(run: Run, there: frozenset[str]) -> Choice:
    """Choose for a run.

    Args:
        there: Names of the backends whose kinds the cluster has.
    """
    wanted, elastic = run.spec.get("backend", "auto"), "elastic" in run.spec["trainer"]
    if wanted != "auto":
        return _if_there(wanted, there, f"spec.backend is {wanted}")
    if elastic:
        return _if_there(PYTORCHJOB.name, there, "TrainJobs cannot be elastic")
    if there == {TRAINJOB.name}:
        return Choice(TRAINJOB.name, "OnlyBackend", "the cluster has TrainJobs and no PyTorchJobs")
    if there == {PYTORCHJOB.name}:
        return Choice(PYTORCHJOB.name, "OnlyBackend", "the cluster has PyTorchJobs and no TrainJobs")
    if there and "queueName" in run.spec:
        return Choice(TRAINJOB.name, "QueueManages", "by default Kueue manages TrainJobs and no longer PyTorchJobs")
    if there:
        return Choice(PYTORCHJOB.name, "Preferred", "the cluster has both kinds, and no queue is asked for")
    both = " or ".join(backend.install for backend in BACKENDS.values())
    return Choice(None, "TrainingOperatorMissing", f"the cluster has no kind of training job: install {both}")


def _if_there(name: str, there: frozenset[str], why: str) -> Choice:
    if name in there:
        return Choice(name, "AskedFor", why)
    backend = BACKENDS[name]
    missing = f"the kind {backend.kind} is missing in this cluster: install {backend.install} ({why})"
    return Choice(None, "TrainingOperatorMissing", missing)
