"""Tests of the charts and Dockerfiles: every ci/ value file is linted, rendered, validated and compared with golden/.

`UPDATE_GOLDEN=1 pytest tests/charts` rewrites the golden files.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
HELM, HADOLINT = (str(Path(sys.executable).parent / name) for name in ("helm", "hadolint"))
CASES = sorted((ROOT / "charts").glob("*/ci/*-values.yaml"))
# Custom resources without a schema here; a real API server validates the first three (tests/cluster).
FOREIGN = {"CaptionTrainingRun", "ServiceMonitor", "PrometheusRule", "SparkApplication", "ScheduledSparkApplication"}
KUBERNETES = "1.31"


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False)


def rendered(case: Path) -> str:
    chart = case.parents[1]
    done = helm("template", "july", str(chart), "--namespace", "ml", "--values", str(case))
    assert done.returncode == 0, done.stderr
    return done.stdout


def case_name(case: Path) -> str:
    return f"{case.parents[1].name}-{case.name.removesuffix('-values.yaml')}"


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_a_chart_is_clean_valid_and_as_before(case: Path) -> None:
    linted = helm("lint", "--strict", str(case.parents[1]), "--values", str(case))
    assert linted.returncode == 0, linted.stdout
    text = rendered(case)
    objects = [found for found in yaml.safe_load_all(text) if found]
    for found in objects:
        if found["kind"] not in FOREIGN:
            kubernetes_validate.validate(found, KUBERNETES, strict=True)
    golden = Path(__file__).parent / "golden" / f"{case_name(case)}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("chart", sorted((ROOT / "charts").iterdir()), ids=lambda chart: chart.name)
def test_each_value_is_described_and_no_other_taken(chart: Path) -> None:
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    known = list(_undescribed(schema, chart.name))
    assert known == []
    values = chart / "values.yaml"
    said = set(yaml.safe_load(values.read_text(encoding="utf-8"))) if values.is_file() else set()
    assert said <= set(schema["properties"])


def _undescribed(schema: dict[str, Any], path: str) -> Any:
    if schema.get("type") == "object" and "properties" in schema and schema.get("additionalProperties") is not False:
        yield f"{path} takes anything"
    for name, found in schema.get("properties", {}).items():
        if "description" not in found:
            yield f"{path}.{name} is not described"
        yield from _undescribed(found, f"{path}.{name}")


@pytest.mark.parametrize(
    ("chart", "values", "said"),
    [
        ("operator", [], "image.repository is required: build the image with `make images`"),
        ("operator", ["replicas=2"], "Additional property replicas is not allowed"),
        ("operator", ["metrics.port=80"], "metrics.port: Must be greater than or equal to 1024"),
        ("operator", ["image.digest=latest"], "image.digest: Does not match pattern"),
        ("training", ["checkpoint.uri=/c"], "dataset.uri: String length must be greater than or equal to 1"),
        ("training", ["dataset.uri=/l", "checkpoint.uri=/c", "trainer.nodes=0"], "trainer.nodes: Must be greater"),
        ("training", ["dataset.uri=/l", "checkpoint.uri=/c", "data.uri=/l"], "Additional property data is not allowed"),
        ("training", ["dataset.uri=/l", "checkpoint.uri=/c"], "trainer.image.repository is required"),
        ("training", ["dataset.uri=/l", "checkpoint.uri=/c", "trainer.image.repository=r"], "needs a digest or a tag"),
        ("training", ["dataset.uri=/l", "checkpoint.uri=/c", "name=7b-july"], "name: Does not match pattern"),
        ("etl", [], "lake: String length must be greater than or equal to 1"),
        ("etl", ["lake=/l"], "image.repository is required"),
        ("etl", ["lake=/l", r"spark.conf.spark\.hadoop\.fs\.s3a\.secret\.key=x"], "spark.conf"),
        ("etl", ["lake=/l", "engine=livy"], "engine must be one of the following"),
        ("crds", ["keep=false"], "Additional property keep is not allowed"),
    ],
)
def test_values_that_are_refused(chart: str, values: list[str], said: str) -> None:
    sets = [part for value in values for part in ("--set", value)]
    done = helm("template", "july", str(ROOT / "charts" / f"capsfusion-{chart}"), *sets)
    assert done.returncode != 0
    assert said in done.stderr


def test_numbers_and_texts_reach_the_cluster_as_they_are() -> None:
    """Helm has all numbers as floats, and prints large ones as 1.2096e+06."""
    runs = {
        case.stem: next(o for o in yaml.safe_load_all(rendered(case)) if o and o["kind"] == "CaptionTrainingRun")[
            "spec"
        ]
        for case in CASES
        if case.parents[1].name == "capsfusion-training"
    }
    gpus = runs["gpus-values"]
    assert gpus["activeDeadlineSeconds"] == 1209600
    assert gpus["trainer"]["set"] == {"micro_batch_size": 32, "peak_lr": 2e-5, "steps": 1000000}
    assert type(gpus["trainer"]["set"]["steps"]) is int
    assert runs["openshift-values"]["trainer"]["env"] == [{"name": "NOTE", "value": "a value: with a colon"}]
    etl = ROOT / "charts" / "capsfusion-etl" / "ci"
    conf = yaml.safe_load(rendered(etl / "application-values.yaml").rpartition("sparkapplication.yaml\n")[2])["spec"]
    assert conf["sparkConf"]["spark.sql.files.maxPartitionBytes"] == "134217728"
    assert conf["sparkConf"]["spark.executor.extraJavaOptions"] == "-Dnote=a: b"
    job = rendered(etl / "openshift-values.yaml")
    assert '"--conf=spark.sql.files.maxPartitionBytes=134217728"' in job
    assert '"max_bytes": 20000000' in job


def test_a_deadline_ends_the_run() -> None:
    """spark-operator's timeToLiveSeconds begins at the end, so the driver ends itself, and is not started again."""
    case = ROOT / "charts" / "capsfusion-etl" / "ci" / "scheduled-gpus-values.yaml"
    found = yaml.safe_load(rendered(case).rpartition("sparkapplication.yaml\n")[2])["spec"]["template"]
    assert {"name": "CAPSFUSION_DEADLINE_S", "value": "1209600"} in found["driver"]["env"]
    assert (found["restartPolicy"]["type"], found["timeToLiveSeconds"]) == ("Never", 604800)


def test_no_pod_needs_a_uid_of_its_own() -> None:
    """OpenShift gives each project a range of uids."""
    for case in CASES:
        if case.stem == "openshift-values":
            assert "runAsUser" not in rendered(case), case
            assert "fsGroup" not in rendered(case), case


def test_one_version() -> None:
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    for chart in sorted((ROOT / "charts").iterdir()):
        said = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
        assert (said["version"], said["appVersion"]) == (version, version), chart


def test_the_dashboard_and_the_alerts_ask_for_metrics_that_there_are() -> None:
    import re

    from capsfusion_k8s.cluster import metrics

    chart = ROOT / "charts" / "capsfusion-operator"
    text = (chart / "dashboard.json").read_text(encoding="utf-8") + (chart / "alerts.yaml").read_text(encoding="utf-8")
    asked = {name.removesuffix("_total").removesuffix("_bucket") for name in re.findall(r"capsfusion_[a-z_]+", text)}
    there = {found._name for found in vars(metrics).values() if hasattr(found, "_name")}
    there |= {gauge._name for gauge in metrics._of_a_run}
    assert asked <= there
    assert len(json.loads((chart / "dashboard.json").read_text(encoding="utf-8"))["panels"]) == 8


def test_pods_of_the_operator_are_restricted() -> None:
    case = ROOT / "charts" / "capsfusion-operator" / "ci" / "default-values.yaml"
    objects = {found["kind"]: found for found in yaml.safe_load_all(rendered(case)) if found}
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    [container] = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert objects["Role"]["metadata"]["name"] == objects["RoleBinding"]["roleRef"]["name"]
    assert "secrets" not in {res for rule in objects["Role"]["rules"] for res in rule["resources"]}


@pytest.mark.parametrize("package", ["etl", "trainer", "k8s"])
def test_dockerfiles(package: str) -> None:
    file = ROOT / package / "Dockerfile"
    done = subprocess.run([HADOLINT, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    text = file.read_text(encoding="utf-8")
    last = text[text.rindex("\nFROM ") :]
    assert text.count("\nFROM ") >= 2  # separate build and runtime stages
    assert "\nUSER " in last
    assert "USER root" not in last
    assert ":latest" not in text
