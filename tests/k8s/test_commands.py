"""Tests of the commands that need no cluster."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from capsfusion_etl import settings

Command = Callable[..., tuple[int, str, str]]
PAGE = Path(__file__).parents[2] / "docs" / "operator.md"


def example() -> str:
    """Return the example run of docs/operator.md."""
    return PAGE.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]


def test_the_pages_run_is_rendered(capsfusion: Command, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(example())
    code, out, _ = capsfusion("operator", "render", file)
    resolver, job = yaml.safe_load_all(out)
    assert (code, job["kind"], job["metadata"]["name"]) == (0, "PyTorchJob", "july-1")
    assert (resolver["kind"], resolver["metadata"]["name"]) == ("Job", "july-resolve")
    assert "failed_gate" not in out  # the gate of a gated run has passed when its job is made
    assert "&id" not in out
    [container] = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    command = container["command"]
    assert command[command.index("--snapshot") + 1] == "/data/lake@latest"
    assert {"--nnodes=2", "--set=trainer.micro_batch_size=2", "--set=trainer.keep=3"} <= set(command)


def test_what_is_rendered_is_what_is_asked_for(capsfusion: Command, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    text = example() + "  suspend: true\n  queueName: gpus\n---\napiVersion: v1\nkind: ServiceAccount\n"
    file.write_text(text.replace("graceSeconds: 120", "graceSeconds: 600"))
    code, out, said = capsfusion("operator", "render", file)
    _, runtime, job = yaml.safe_load_all(out)
    assert (code, runtime["kind"], job["kind"], job["spec"]["suspend"]) == (0, "TrainingRuntime", "TrainJob", True)
    assert "trainjob: by default Kueue manages TrainJobs" in said
    [replicated] = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["template"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 600


def test_small_numbers_reach_the_trainer_as_numbers(capsfusion: Command, tmp_path: Path) -> None:
    """What the operator renders is what the trainer reads, in every spelling that kubectl takes for a number."""
    file = tmp_path / "run.yaml"
    file.write_text(example().replace("micro_batch_size: 2", "peak_lr: 1e-4, min_lr: 0.00003, weight_decay: 2.0e-5"))
    code, out, _ = capsfusion("operator", "render", file)
    *_, job = yaml.safe_load_all(out)
    [container] = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    sets = [word.removeprefix("--set=") for word in container["command"] if word.startswith("--set=trainer.")]
    trainer = settings.load(None, sets)["trainer"]
    assert (code, trainer["peak_lr"], trainer["min_lr"], trainer["weight_decay"]) == (0, 1e-4, 3e-5, 2e-5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot read"),
        ("a: [", "cannot read"),
        ("kind: Job", "holds 0 objects of the kind CaptionTrainingRun of capsfusion.io/v1alpha1, not one"),
        (example().replace("checkpoint:", "checkpoints:"), "spec: 'checkpoint' is a required property"),
        (example().replace("recipe: micro_cpu", "set: {}"), "spec.trainer: say a recipe or a command"),
        (example().replace("nodes: 2", "nodse: 2"), "'nodse' was unexpected"),
    ],
)
def test_files_that_are_no_runs(capsfusion: Command, tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "run.yaml"
    if text is not None:
        file.write_text(text)
    for command in (("operator", "render"), ("submit",)):
        code, _, error = capsfusion(*command, file)
        assert (code, error.startswith("capsfusion: "), said in error) == (2, True, True)


def test_an_operator_is_told_whose_runs_to_follow(capsfusion: Command) -> None:
    assert capsfusion("operator", "run")[0] == 2
    assert "say --namespace NAME or --all-namespaces" in capsfusion("operator", "run", "-n", "ml", "-A")[2]
