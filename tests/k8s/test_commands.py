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
    job = yaml.safe_load(out)
    assert (code, job["kind"], job["metadata"]["name"]) == (0, "PyTorchJob", "july-1")
    [container] = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    command = container["command"]
    assert command[command.index("--snapshot") + 1] == "/lake@latest"
    assert {"--nnodes=2", "--set=trainer.micro_batch_size=2", "--set=trainer.keep=3"} <= set(command)


def test_small_numbers_reach_the_trainer_as_numbers(capsfusion: Command, tmp_path: Path) -> None:
    """What the operator renders is what the trainer reads, in every spelling that kubectl takes for a number."""
    file = tmp_path / "run.yaml"
    file.write_text(example().replace("micro_batch_size: 2", "peak_lr: 1e-4, min_lr: 0.00003, weight_decay: 2.0e-5"))
    code, out, _ = capsfusion("operator", "render", file)
    [container] = yaml.safe_load(out)["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    sets = [word.removeprefix("--set=") for word in container["command"] if word.startswith("--set=trainer.")]
    trainer = settings.load(None, sets)["trainer"]
    assert (code, trainer["peak_lr"], trainer["min_lr"], trainer["weight_decay"]) == (0, 1e-4, 3e-5, 2e-5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot read"),
        ("a: [", "cannot read"),
        ("kind: Job", "is no CaptionTrainingRun of capsfusion.io/v1alpha1"),
        (example().replace("checkpoint:", "checkpoints:"), "has no spec.checkpoint.uri"),
        (example().replace("recipe: micro_cpu", "x: 1"), "say trainer.recipe or trainer.command"),
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
