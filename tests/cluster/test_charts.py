"""Tests of the charts against a real API server: helm installs, upgrades and removes them."""

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from conftest import HELM
from kubernetes.client import ApiException
from plane import CHARTS, Plane
from waiting import until

if TYPE_CHECKING:
    from conftest import Runs

pytestmark = pytest.mark.cluster
GOLDEN = sorted((Path(__file__).parents[1] / "charts" / "golden").glob("*.yaml"))
UNKNOWN = {"SparkApplication", "ScheduledSparkApplication"}  # the spark-operator's CRDs are not installed


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_each_object_is_accepted(plane: Plane, golden: Path) -> None:
    plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ml"}})
    for found in yaml.safe_load_all(golden.read_text(encoding="utf-8")):
        if found and found["kind"] not in UNKNOWN:
            [taken] = plane.apply(found, namespace="ml", query="&dryRun=All&fieldValidation=Strict")
            assert (taken["kind"], taken["metadata"]["name"]) == (found["kind"], found["metadata"]["name"])


def test_installed_used_and_removed_by_helm(plane: Plane, runs: "Runs") -> None:
    def helm(*arguments: str) -> str:
        done = subprocess.run(
            [HELM, *arguments, "--namespace", runs.namespace], capture_output=True, text=True, check=False,
            env=os.environ | {"KUBECONFIG": str(plane.kubeconfig)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    crds, operator, training = (str(CHARTS / f"capsfusion-{name}") for name in ("crds", "operator", "training"))
    # The tests installed the CRD without helm: label it, so that helm adopts it.
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/captiontrainingruns.capsfusion.io"
    ours = {
        "labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"meta.helm.sh/release-name": "crds", "meta.helm.sh/release-namespace": runs.namespace},
    }
    plane.call(path, "PATCH", {"metadata": ours}, "application/merge-patch+json")
    helm("install", "crds", crds)
    helm("upgrade", "crds", crds)
    said = helm("install", "op", operator)
    assert f"follows the training runs of namespace {runs.namespace}" in said
    deployment = f"/apis/apps/v1/namespaces/{runs.namespace}/deployments/op-capsfusion-operator"
    until(lambda: plane.get(deployment)["status"].get("readyReplicas") == 1, "its restricted pod runs")
    values = ["--set", "dataset.uri=/lake", "--set", "checkpoint.uri=/checkpoints", "--set", "dataset.version=3"]
    helm("install", "july", training, *values)
    until(lambda: runs.status("july").get("phase") == "Gating", "the run is followed")
    helm("upgrade", "july", training, "--reuse-values", "--set", "suspend=true", "--set", "ttlSecondsAfterFinished=60")
    assert runs.get("july")["spec"]["suspend"] is True
    with pytest.raises(AssertionError, match="dataset cannot be changed; make another run"):
        helm("upgrade", "july", training, "--reuse-values", "--set", "dataset.version=4")
    helm("uninstall", "july")
    until(lambda: not runs.get("july"), "the run is removed")
    helm("uninstall", "op")
    helm("uninstall", "crds")
    assert plane.exists(path)  # removing the CRD would delete all runs


def test_people_of_a_run_see_and_suspend_it_and_nothing_else(plane: Plane, runs: "Runs") -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "anna"}}
    plane.apply(account, namespace=runs.namespace)
    runs.submit("hers")
    runs.submit("others")
    sets = ["dataset.uri=/l", "checkpoint.uri=/c", "people[0].kind=ServiceAccount", "people[0].name=anna"]
    command = [HELM, "template", "hers", str(CHARTS / "capsfusion-training"), "-n", runs.namespace]
    options = [part for value in sets for part in ("--set", value)]
    text = subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout
    roles = [found for found in yaml.safe_load_all(text) if found and found["kind"] in ("Role", "RoleBinding")]
    plane.apply(*roles, namespace=runs.namespace)
    from capsfusion_k8s.api import Api
    from kubernetes import config

    api = Api(config.new_client_from_config(str(plane.account(runs.namespace, "anna"))))
    assert api.get("runs", runs.namespace, "hers") is not None
    api.patch_spec(runs.namespace, "hers", {"suspend": True})
    assert isinstance(api.listed("pods", runs.namespace, "hers"), list)
    refused: list[Any] = []
    for action in (
        lambda: api.get("runs", runs.namespace, "others"),
        lambda: api.patch_spec(runs.namespace, "others", {"suspend": True}),
        lambda: api.delete("runs", runs.get("hers")),
    ):
        with pytest.raises(ApiException) as error:
            action()
        refused.append(error.value.status)
    assert refused == [403, 403, 403]
