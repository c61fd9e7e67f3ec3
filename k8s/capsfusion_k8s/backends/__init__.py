"""The kinds of training job that a run can become, and the choice between them."""

from capsfusion_k8s.backends.backend import Backend
from capsfusion_k8s.backends.pytorchjob import PYTORCHJOB
from capsfusion_k8s.backends.trainjob import TRAINJOB
from capsfusion_k8s.run import Run

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (PYTORCHJOB, TRAINJOB)}


def backend_of(run: Run) -> Backend:
    """Return the backend that was chosen for a run; before the choice, and in runs of older versions, PyTorchJob."""
    return BACKENDS[run.backend or PYTORCHJOB.name]


__all__ = ["BACKENDS", "PYTORCHJOB", "TRAINJOB", "Backend", "backend_of"]
