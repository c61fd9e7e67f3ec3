"""Test the Databricks and EMR files: the vendors' own models know every field, and this project every command."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator
from capsfusion_etl.cli.main import app
from databricks.bundles.jobs import Job

HADOLINT = Path(sys.executable).with_name("hadolint")
PLATFORMS = Path(__file__).parents[2] / "etl" / "platforms"
COMMANDS = {(c.name or c.callback.__name__) for c in app.registered_commands if c.callback}


def job(target: str) -> dict[str, Any]:
    bundle = yaml.safe_load((PLATFORMS / "databricks" / "databricks.yml").read_text())
    found: dict[str, Any] = bundle["resources"]["jobs"]["captions"]
    return found | bundle["targets"][target].get("resources", {}).get("jobs", {}).get("captions", {})


@pytest.mark.parametrize("target", ["dev", "prod"])
def test_the_bundle_is_a_job_of_databricks_own_model(target: str) -> None:
    read = Job.from_dict(job(target))
    assert read.as_dict()["schedule"]["pause_status"] == ("PAUSED" if target == "dev" else "UNPAUSED")


def test_the_bundle_runs_commands_that_there_are_in_their_order() -> None:
    tasks = job("dev")["tasks"]
    commands = [task["python_wheel_task"]["parameters"][0] for task in tasks]
    assert commands == ["ingest", "fetch", "filter", "dedup", "caption", "fuse", "publish"]
    assert set(commands) <= COMMANDS
    assert [t["depends_on"][0]["task_key"] for t in tasks[1:]] == commands[:-1]
    assert {t["job_cluster_key"] for t in tasks} == {c["job_cluster_key"] for c in job("dev")["job_clusters"]}


@pytest.mark.parametrize(
    ("file", "service", "operation"),
    [
        ("ec2_cluster.json", "emr", "RunJobFlow"),
        ("serverless_job.json", "emr-serverless", "StartJobRun"),
        ("eks_job.json", "emr-containers", "StartJobRun"),
    ],
)
def test_what_is_sent_to_emr_is_what_its_api_takes(file: str, service: str, operation: str) -> None:
    request = json.loads((PLATFORMS / "emr" / file).read_text())
    model = botocore.session.get_session().get_service_model(service).operation_model(operation)
    if operation == "StartJobRun":
        request |= {"clientToken": "made-by-the-cli"}
    report = ParamValidator().validate(request, model.input_shape)
    assert not report.has_errors(), report.generate_report()
    assert '"run", "--lake"' in (PLATFORMS / "emr" / file).read_text()


def test_scripts_and_the_image_are_well_formed() -> None:
    scripts = [*PLATFORMS.rglob("*.sh"), *(PLATFORMS.parent / "jobs").glob("*.sh")]
    assert len(scripts) >= 5
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
    subprocess.run([HADOLINT, PLATFORMS / "emr" / "Dockerfile"], check=True)
