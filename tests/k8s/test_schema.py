"""Tests of the check of a run's file: it refuses what the API server refuses, with the path of the field."""

from typing import Any

import pytest
from capsfusion_k8s.schema import defaulted, faults

RUN: dict[str, Any] = {
    "apiVersion": "capsfusion.io/v1alpha1", "kind": "CaptionTrainingRun", "metadata": {"name": "july"},
    "spec": {
        "dataset": {"uri": "/lake", "snapshot": "july"}, "checkpoint": {"uri": "/checkpoints"},
        "trainer": {"image": "a@sha256:0", "recipe": "micro_cpu", "resources": {"limits": {"nvidia.com/gpu": 8}}},
    },
}  # fmt: skip


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return RUN with another value at a path; None removes the field."""
    import copy

    found = copy.deepcopy(RUN)
    *parents, last = path.split(".")
    part = found
    for key in parents:
        part = part[key]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return found


def test_a_good_run_gets_the_defaults_of_the_api_server() -> None:
    assert faults(RUN) == []
    whole = defaulted(RUN)["spec"]
    assert (whole["checkpoint"]["graceSeconds"], whole["trainer"]["procPerNode"], whole["backend"]) == (120, 1, "auto")
    assert "restartPolicy" not in whole  # a parent that is not given gets none


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("spec.trainer.nodse", 3, "spec.trainer: Additional properties are not allowed ('nodse' was unexpected)"),
        ("spec.checkpoint.keeep", 3, "spec.checkpoint: Additional properties are not allowed"),
        ("spec.trainer.nodes", "two", "spec.trainer.nodes: 'two' is not of type 'integer'"),
        ("spec.trainer.nodes", 0, "spec.trainer.nodes: 0 is less than the minimum of 1"),
        ("spec.trainer.env", {"a": "b"}, "spec.trainer.env: {'a': 'b'} is not of type 'array'"),
        ("spec.trainer.elastic", {"min": 3, "max": 2}, "spec.trainer.elastic: min is above max"),
        ("spec.dataset.version", 3, "spec.dataset: say exactly one of version, snapshot and latestPassing"),
        ("spec.dataset.snapshot", None, "spec.dataset: say exactly one of version, snapshot and latestPassing"),
        ("spec.trainer.recipe", None, "spec.trainer: say a recipe or a command"),
        ("spec.checkpoint", None, "spec: 'checkpoint' is a required property"),
        ("spec.retention", {"until": "soon"}, "spec.retention.until: 'soon' is not a 'date-time'"),
        ("spec.backend", "mpijob", "spec.backend: 'mpijob' is not one of ['auto', 'pytorchjob', 'trainjob']"),
        ("metadata.name", "7b-july", "metadata.name: the name must begin with a letter"),
        ("metadata.name", "july.v2", "metadata.name: the name must begin with a letter"),
        ("metadata.name", "July_Run", "metadata.name: the name must begin with a letter"),
        ("metadata.name", "a" * 41, "metadata.name: the name must have at most 40 characters"),
    ],
)
def test_what_is_refused(path: str, value: Any, said: str) -> None:
    [fault] = faults(changed(path, value))
    assert fault.startswith(said)


def test_nodes_and_elastic_are_one_too_many() -> None:
    both = changed("spec.trainer.elastic", {"min": 1, "max": 2})
    both["spec"]["trainer"]["nodes"] = 2
    assert faults(both) == ["spec.trainer: say nodes or elastic"]
    apart = changed("spec.trainer.elastic", {"min": 1, "max": 2})
    apart["spec"]["backend"] = "trainjob"
    assert faults(apart) == ["spec: TrainJobs cannot be elastic: say nodes, or backend: pytorchjob"]
