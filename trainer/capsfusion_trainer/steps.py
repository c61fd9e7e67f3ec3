"""The trainer's steps of `capsfusion run`. Importing them does not import torch; running them does."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsfusion_etl.errors import MissingDependencyError
from capsfusion_etl.storage import is_remote

if TYPE_CHECKING:
    from capsfusion_etl.lake.run import Run
    from capsfusion_etl.snapshots.manifest import Manifest


def train(settings: dict[str, Any]) -> "Callable[[Run, Manifest], None]":
    """Return the step that trains with the `trainer` section of the settings.

    Raises:
        InputError: The section is invalid.
    """
    from capsfusion_trainer.config import of_settings

    config = of_settings(settings)

    def run_step(run: "Run", manifest: "Manifest") -> None:
        try:
            from capsfusion_trainer.train import train as loop
            from capsfusion_trainer.training.monitor import summary
        except ModuleNotFoundError as error:
            raise MissingDependencyError(f"no {error.name}: pip install 'capsfusion-lake[trainer]'") from None
        out, beside_lake = folder(run.lake.local_folder, manifest), str(folder(run.lake.folder, manifest))
        with run.stage("train") as counts:
            done = (out / "complete.json").is_file()
            # Checkpoints of a remote lake go to its store, which outlives this machine.
            metrics = loop(config, manifest, out, checkpoints=beside_lake if is_remote(beside_lake) else None)
            counts.rows_in = metrics["step"] * config.global_batch_size
            counts.rows_out = 0 if done or math.isnan(metrics["loss"]) else counts.rows_in
            counts.note = f"{summary(metrics)}{', done before' if done else ''}"

    return run_step


def evaluate(settings: dict[str, Any]) -> "Callable[[Run, Manifest], None]":
    """Return the step that evaluates the model that `train` made."""

    def run_step(run: "Run", manifest: "Manifest") -> None:
        from capsfusion_trainer.evaluation.held_out import evaluate as score

        with run.stage("evaluate") as counts:
            result = score(manifest, folder(run.lake.local_folder, manifest))
            counts.rows_in = result["pairs"]
            counts.note = said(result)

    return run_step


def folder(work: Path, manifest: "Manifest") -> Path:
    """Return the default folder of a snapshot's model."""
    return work / "checkpoints" / manifest.name


def said(result: dict[str, Any]) -> str:
    """Return a one-line summary of an evaluation."""
    if result["loss"] is None:
        return "no held-out images in this snapshot"
    others = {"with other pairs' images": result["mismatched_loss"], "in the first step": result["first_loss"]}
    said = [f"{value:.3f} {what}" for what, value in others.items() if value is not None]
    return ", ".join([f"held-out loss {result['loss']:.3f}", *said])
