"""Tests of the charts against a real API server: helm installs, upgrades and removes them."""

import itertools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from conftest import HELM, IMAGE_VALUE
from kubernetes.client import ApiException
from plane import CHARTS, Plane
from waiting import until

if TYPE_CHECKING:
    from runs import Runs

pytestmark = pytest.mark.cluster
GOLDEN = sorted((Path(__file__).parents[1] / "charts" / "golden").glob("*.yaml"))
UNKNOWN = {"SparkApplication", "ScheduledSparkApplication"}  # the spark-operator's CRDs are not installed


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_each_object_is_accepted(plane: Plane, golden: Path) -> None:
    for name in ("ml", "vision", "language"):
        plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
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
    said = helm("install", "op", operator, *IMAGE_VALUE)
    assert f"follows the training runs of namespace {runs.namespace}" in said
    deployment = f"/apis/apps/v1/namespaces/{runs.namespace}/deployments/op-capsfusion-operator"
    until(lambda: plane.get(deployment)["status"].get("readyReplicas") == 1, "its restricted pod runs")
    image = "trainer.image.repository=example.org/trainer,trainer.image.tag=1"
    values = ["--set", f"dataset.uri=/lake,checkpoint.uri=/checkpoints,dataset.version=3,{image}"]
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
    plane.apply(*yaml.safe_load_all(_template("capsfusion-crds", runs, "--show-only", "templates/policy.yaml")))
    runs.submit("hers")
    runs.submit("others")
    sets = ["dataset.uri=/l", "checkpoint.uri=/c", "people[0].kind=ServiceAccount", "people[0].name=anna"]
    sets += ["trainer.image.repository=example.org/trainer", "trainer.image.tag=1", "name=hers"]
    text = _template("capsfusion-training", runs, "--set", ",".join(sets))
    roles = [found for found in yaml.safe_load_all(text) if found and found["kind"] in ("Role", "RoleBinding")]
    plane.apply(*roles, namespace=runs.namespace)
    from capsfusion_k8s.cluster.api import Api
    from capsfusion_k8s.cluster.kinds import RUNS
    from kubernetes import config

    api = Api(config.new_client_from_config(str(plane.account(runs.namespace, "anna"))))
    assert api.get(RUNS, runs.namespace, "hers") is not None

    def hers(**changes: Any) -> Callable[[], object]:
        return lambda: api.patch_spec(runs.namespace, "hers", changes)

    def refused(action: Callable[[], object]) -> int:
        with pytest.raises(ApiException) as error:
            action()
        return int(error.value.status)

    runs.wait("hers", "Running")
    # The policy is in force a moment after it was made.
    limits = itertools.count(5000)
    until(lambda: _refuses(hers(activeDeadlineSeconds=next(limits))), "the policy is in force", 30)
    for action in (
        hers(activeDeadlineSeconds=1), hers(ttlSecondsAfterFinished=0), hers(retention={"holdSnapshot": False}),
        lambda: api.annotate(f"{runs.path}/hers", {"a": "b"}),
    ):  # fmt: skip
        assert refused(action) == 422
    hers(suspend=True)()
    hers(suspend=False)()
    for action in (
        lambda: api.get(RUNS, runs.namespace, "others"),
        lambda: api.patch_spec(runs.namespace, "others", {"suspend": True}),
        lambda: api.delete(RUNS, runs.get("hers")),
        lambda: api.listed("pods", runs.namespace, "hers"),
        lambda: api.log({"metadata": {"namespace": runs.namespace, "name": "any"}}, 1),
    ):
        assert refused(action) == 403
    # Whoever may update runs may change all of it.
    runs.patch("hers", activeDeadlineSeconds=1000)


def _refuses(action: Callable[[], object]) -> bool:
    try:
        action()
    except ApiException:
        return True
    return False


def _template(chart: str, runs: "Runs", *options: str) -> str:
    command = [HELM, "template", "x", str(CHARTS / chart), "-n", runs.namespace, *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
