"""Tests of the CRD's validation rules: what the API server refuses, and its messages."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from kubernetes.client import ApiException
from plane import Plane

if TYPE_CHECKING:
    from runs import Runs

pytestmark = pytest.mark.cluster
SPEC: dict[str, Any] = {
    "dataset": {"uri": "/lake", "snapshot": "july"}, "checkpoint": {"uri": "/checkpoints"},
    "trainer": {"image": "a@sha256:0", "recipe": "micro_cpu"},
}  # fmt: skip

ONE_OF = "say exactly one of version, snapshot and latestPassing"


def create(plane: Plane, name: str, spec: dict[str, Any], namespace: str = "default") -> Any:
    path = f"/apis/capsfusion.io/v1alpha1/namespaces/{namespace}/captiontrainingruns?fieldValidation=Strict"
    body = {
        "apiVersion": "capsfusion.io/v1alpha1",
        "kind": "CaptionTrainingRun",
        "metadata": {"name": name},
        "spec": spec,
    }
    return plane.call(path, "POST", body)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("a", {"datset": {}}, 'unknown field "spec.datset"'),
        ("a", {"dataset": {"uri": "/lake", "snapshot": "july", "version": 3}}, ONE_OF),
        ("a", {"dataset": {"uri": "/lake"}}, ONE_OF),
        ("a", {"dataset": {"uri": "/lake", "latestPassing": False}}, "latestPassing"),
        ("a" * 60, {}, "the name must have at most 40 characters"),
        ("7b-july", {}, "the name must begin with a letter"),
        ("july.v2", {}, "the name must begin with a letter"),
        ("July_Run", {}, "metadata.name"),
        ("a", {"backend": "mpijob"}, "spec.backend"),
        ("a", {"backend": "trainjob", "trainer": {"image": "a", "recipe": "m", "elastic": {"min": 1, "max": 2}}},
         "TrainJobs cannot be elastic"),
        ("a", {"trainer": {"image": "a"}}, "say a recipe or a command"),
        ("a", {"trainer": SPEC["trainer"] | {"nodes": 2, "elastic": {"min": 1, "max": 2}}}, "say nodes or elastic"),
        ("a", {"trainer": SPEC["trainer"] | {"elastic": {"min": 3, "max": 2}}}, "min is above max"),
        ("a", {"trainer": SPEC["trainer"] | {"nodes": 0}}, "should be greater than or equal to 1"),
        ("a", {"restartPolicy": {"backoff": "soon"}}, "spec.restartPolicy.backoff"),
        ("a", {"qualityGate": {"maxAge": "1w"}}, "spec.qualityGate.maxAge"),
    ],
)  # fmt: skip
def test_at_creation(plane: Plane, name: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ApiException) as refused:
        create(plane, name, SPEC | changes)
    assert refused.value.status in (400, 422)
    assert said in refused.value.body.replace('\\"', '"')


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": {"uri": "/other"}}, "dataset cannot be changed; make another run"),
        ({"dataset": {"tableId": "t"}}, "dataset cannot be changed"),
        ({"trainer": {"nodes": 3}}, "trainer cannot be changed"),
        ({"checkpoint": {"keep": 3}}, "checkpoint cannot be changed"),
        ({"qualityGate": {"required": False}}, "qualityGate cannot be changed"),
        ({"restartPolicy": {"maxRestarts": 9}}, "restartPolicy cannot be changed"),
        ({"queueName": "gpus"}, "queueName cannot be changed"),
        ({"priorityClassName": "high"}, "priorityClassName cannot be changed"),
        ({"backend": "trainjob"}, "backend cannot be changed"),
        ({"resolver": {"queueName": "cpus"}}, "resolver cannot be changed"),
        ({"suspend": True, "ttlSecondsAfterFinished": 5, "activeDeadlineSeconds": 9}, None),
        ({"retention": {"holdSnapshot": True}}, None),
    ],
)  # fmt: skip
def test_at_a_change(plane: Plane, changes: dict[str, Any], said: str | None) -> None:
    path = "/apis/capsfusion.io/v1alpha1/namespaces/default/captiontrainingruns/fixed"
    if not plane.exists(path):
        create(plane, "fixed", SPEC)
    if said is None:
        plane.call(path, "PATCH", {"spec": changes}, "application/merge-patch+json")
        return
    with pytest.raises(ApiException) as refused:
        plane.call(path, "PATCH", {"spec": changes}, "application/merge-patch+json")
    assert said in refused.value.body


def test_the_pages_run_is_accepted(plane: Plane) -> None:
    page = Path(__file__).parents[2] / "docs" / "operator.md"
    text = page.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    assert create(plane, "page", yaml.safe_load(text)["spec"])["metadata"]["name"] == "page"


def test_a_pin_is_written_once(plane: Plane) -> None:
    create(plane, "pinned", SPEC)
    path = "/apis/capsfusion.io/v1alpha1/namespaces/default/captiontrainingruns/pinned/status"
    merge = "application/merge-patch+json"
    plane.call(path, "PATCH", {"status": {"snapshot": {"version": 3}}}, merge)
    for changed in ({"version": 4}, None):
        with pytest.raises(ApiException) as refused:
            plane.call(path, "PATCH", {"status": {"snapshot": changed}}, merge)
        assert "a pin is written once" in refused.value.body


def test_a_terminal_phase_never_reopens(plane: Plane) -> None:
    create(plane, "over", SPEC)
    path = "/apis/capsfusion.io/v1alpha1/namespaces/default/captiontrainingruns/over/status"
    merge = "application/merge-patch+json"
    plane.call(path, "PATCH", {"status": {"phase": "Failed"}}, merge)
    with pytest.raises(ApiException) as refused:
        plane.call(path, "PATCH", {"status": {"phase": "Running"}}, merge)
    assert "never reopens" in refused.value.body


def test_what_kubectl_shows(plane: Plane, runs: "Runs") -> None:
    runs.submit("shown")
    runs.wait("shown", "Running")
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    table = plane.api.call_api(
        f"{runs.path}/shown", "GET", header_params=accept, response_type="object", auth_settings=["BearerToken"],
        _return_http_data_only=True,
    )  # fmt: skip
    names = [column["name"] for column in table["columnDefinitions"]]
    cells = dict(zip(names, table["rows"][0]["cells"], strict=True))
    assert names == ["Name", "Phase", "Snapshot", "Step", "ETA", "Age", "Attempt", "Backend"]
    assert (cells["Name"], cells["Phase"], cells["Snapshot"]) == ("shown", "Running", 3)
