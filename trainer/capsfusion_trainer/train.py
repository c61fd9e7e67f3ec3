"""The training loop: trains on a pinned snapshot, writes a model in safetensors, and resumes after a stop at any step.

The position in the data is the step alone: the manifest, the seed and the step determine its rows (see `data.order`).
So a resumed run sees the same rows as an uninterrupted one, also with another number of ranks.
"""

import hashlib
import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, cast

from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import write_json

from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.data.batch import PADDING, Batch
from capsfusion_trainer.data.loader import Loading, batches, order_of
from capsfusion_trainer.data.snapshot import Split
from capsfusion_trainer.training.checkpoint import Checkpoints
from capsfusion_trainer.training.distributed import World, init_distributed
from capsfusion_trainer.training.export import export
from capsfusion_trainer.training.monitor import Monitor, last_metrics, recent_losses
from capsfusion_trainer.training.step import TrainStep


def identity(config: TrainerConfig, manifest: Manifest) -> str:
    """Return the hash that identifies a run: of the manifest and of every setting that the result depends on."""
    return hashlib.sha256((json.dumps(config.what(), sort_keys=True) + manifest.sha256()).encode()).hexdigest()


def train(
    config: TrainerConfig, manifest: Manifest, out: Path, checkpoints: str | None = None, resume_from: str | None = None
) -> dict[str, Any]:
    """Train on the `train` split of a snapshot and write the model to `out`. A finished run is not repeated.

    Args:
        config: The settings of the run.
        manifest: The snapshot.
        out: Folder of the run.
        checkpoints: Folder or fsspec URL, by default `checkpoints` in `out`. If it is elsewhere, the model is also
            copied there.
        resume_from: Other folder or URL with checkpoints of this run: the newest is loaded if `checkpoints` has none.

    Returns:
        The last metrics.

    Raises:
        InputError: The snapshot has no images, `out` or the checkpoints belong to another run, `resume_from` has no
            complete checkpoint, or the loss is NaN, infinite or a spike.
        OSError: A checkpoint could not be written.
        SystemExit: Status 143 after SIGTERM, once a checkpoint is written.
    """
    split = Split(manifest, "train")
    if not split.has_images():
        raise InputError(
            f"snapshot {manifest.name} has no pictures to train on: publish one made with fetch.enabled=true"
        )
    with _Termination() as termination, init_distributed(config.timeout_s) as world:
        if not _claim(out, identity(config, manifest), world):
            return last_metrics(out)
        with closing(TrainStep(config, world, steps_of(config, split))) as train_step:
            places = checkpoints or str(out / "checkpoints"), resume_from
            return _train(train_step, split, manifest, out, places, termination)


def _train(
    train_step: TrainStep, split: Split, manifest: Manifest, out: Path, places: tuple[str, str | None],
    termination: "_Termination",
) -> dict[str, Any]:  # fmt: skip
    config, world, total = train_step.config, train_step.world, train_step.total
    run, (place, resume_from) = identity(config, manifest), places
    monitor = Monitor(out, speaks=world.first, total=total, snapshot=manifest.name)
    with monitor, Checkpoints(place, world, run, config.keep, monitor.saved) as saved:
        step = saved.restore(train_step.distributed, train_step.optimizer)
        if resume_from is not None and not step:
            earlier = Checkpoints(resume_from, world, run, config.keep, monitor.saved)
            step = earlier.restore(train_step.distributed, train_step.optimizer)
            if not step:
                raise InputError(f"--resume-from: {resume_from} holds no whole checkpoint to resume from")
        monitor.start(step, world.broadcast(recent_losses(out, step) if world.first else None))
        if world.first:
            _tell_of_cut_captions(split, train_step)
        begun = step
        for batch, wait_s in _timed(_batches(split, train_step, range(step, total))):
            started = time.perf_counter()
            loss = train_step.backward(batch)
            fault = monitor.strange(loss, config.spike_factor)
            if fault is not None:
                raise _astray(fault, step, batch, world, out)
            metrics = train_step.update(batch, step)
            step += 1
            stop = world.all_reduce(termination.asked)[0] > 0
            saved.poll()
            if step % config.checkpoint_every == 0 or step == total or stop:
                saved.save(train_step.distributed, train_step.optimizer, step)
            monitor.step(step, metrics, wait_s, time.perf_counter() - started + wait_s)
            if stop:
                raise SystemExit(143)
        export(train_step.distributed, train_step.model, out / "model", world)
        if place != str(out / "checkpoints"):
            saved.keep_model(out / "model", made=step > begun)
    if world.first:
        done = {
            "step": step, "snapshot": manifest.name, "manifest_sha256": manifest.sha256(),
            "strategy": manifest.strategy, "recipe": config.recipe, "seed": config.seed,
            "pairs_seen": step * config.global_batch_size,
        }  # fmt: skip
        write_json(out / "complete.json", done)
    return cast(dict[str, Any], world.broadcast(last_metrics(out) if world.first else None))


def steps_of(config: TrainerConfig, split: Split) -> int:
    """Return the number of steps of a run."""
    if config.steps is not None:
        return config.steps
    order = order_of(split, seed=config.seed, batch=config.global_batch_size, lanes=config.lanes)
    return math.ceil(config.epochs * order.steps_per_epoch)


def _batches(split: Split, train_step: TrainStep, steps: range) -> Iterator[Batch]:
    config, world = train_step.config, train_step.world
    loading = Loading(
        seed=config.seed, batch=config.global_batch_size, lanes=config.lanes,
        rank=world.rank, world=world.size, workers=config.workers, start_method=config.start_method,
    )  # fmt: skip
    return batches(split, train_step.encoding, steps, loading)


def _timed(loaded: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    while True:
        started = time.perf_counter()
        batch = next(loaded, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - started


def _tell_of_cut_captions(split: Split, train_step: TrainStep) -> None:
    """Print how many captions of the first row group are cut at `max_tokens`, if any is."""
    captions = split.table(0, 0).column("caption").to_pylist()
    longest = replace(train_step.encoding, max_tokens=10**6).tokens(captions)
    cut = int(((longest != PADDING).sum(dim=1) > train_step.config.max_tokens).sum())
    if cut:
        print(
            f"{cut} of the first {len(captions)} captions have more than trainer.max_tokens="
            f"{train_step.config.max_tokens} tokens: they are cut, without an end token", flush=True,
        )  # fmt: skip


def _astray(fault: str, step: int, batch: Batch, world: World, out: Path) -> InputError:
    """Write the pairs of a step with a bad loss to astray.json, and return the error that stops the run."""
    pair_ids = [pair_id for ids in world.all_gather(batch.pair_ids) for pair_id in ids]
    path = out / "astray.json"
    if world.first:
        write_json(path, {"step": step + 1, "fault": fault, "pair_ids": pair_ids})
    shown = ", ".join(pair_ids[:3])
    return InputError(
        f"{fault} at step {step + 1}: no weights were updated; inspect its {len(pair_ids)} pairs, in {path}: {shown}; "
        "to go on through a spike: --set trainer.spike_factor=0"
    )


def _claim(out: Path, run: str, world: World) -> bool:
    """Claim `out` for a run; return False if the run is already complete. A folder belongs to one run."""
    state = "ours"
    if world.first:
        out.mkdir(parents=True, exist_ok=True)
        path = out / "run.json"
        if not path.is_file():
            write_json(path, {"run": run})
        elif json.loads(path.read_text(encoding="utf-8"))["run"] != run:
            state = "another's"
        elif (out / "complete.json").is_file():
            state = "done"
    state = world.broadcast(state)
    if state == "another's":
        raise InputError(f"{out} holds a run with other settings or data: choose another --out, or remove this folder")
    return bool(state == "ours")


class _Termination:
    """Records a SIGTERM in `asked`, which the loop checks after each step."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "_Termination":
        self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _ask(self, *_: "int | FrameType | None") -> None:
        self.asked = True
