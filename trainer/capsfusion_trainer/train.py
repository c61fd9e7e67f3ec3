"""The training loop: trains on a pinned snapshot, writes a model in safetensors, and resumes after a stop at any step.

The position in the data is the step alone: the manifest, the seed and the step determine its rows (see `data.order`).
So a resumed run sees the same rows as an uninterrupted one, also with another number of ranks.
"""

import hashlib
import json
import math
import time
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import write_json

from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.data.batch import PADDING, Batch
from capsfusion_trainer.data.loader import Loading, batches, order_of
from capsfusion_trainer.data.snapshot import SortedSplit, Split
from capsfusion_trainer.training.checkpoint import Checkpoints
from capsfusion_trainer.training.claim import COMPLETE, check_finished, claim, steps_to_skip
from capsfusion_trainer.training.distributed import World, init_distributed
from capsfusion_trainer.training.export import export
from capsfusion_trainer.training.monitor import Monitor, last_metrics, recent_losses
from capsfusion_trainer.training.step import TrainStep
from capsfusion_trainer.training.termination import Termination
from capsfusion_trainer.training.verification import Verification


class _Places(NamedTuple):
    """See `train`."""

    out: Path
    checkpoints: str
    resume_from: str | None


def identity(config: TrainerConfig, manifest: Manifest) -> str:
    """Return the hash that identifies a run: of the manifest and of every setting that the result depends on."""
    return hashlib.sha256((json.dumps(config.what(), sort_keys=True) + manifest.sha256()).encode()).hexdigest()


def train(
    config: TrainerConfig, manifest: Manifest, out: Path, checkpoints: str | None = None,
    resume_from: str | None = None, *, hashes: bool = False, skip: Collection[int] = (), along: Collection[int] = (),
) -> dict[str, Any]:  # fmt: skip
    """Train on the `train` split of a snapshot and write the model to `out`. A finished run is not repeated.

    Args:
        config: The settings of the run.
        manifest: The snapshot.
        out: Folder of the run.
        checkpoints: Folder or fsspec URL, by default `checkpoints` in `out`. If it is elsewhere, the model is also
            copied there.
        resume_from: Other folder or URL with checkpoints of this run: the newest is loaded if `checkpoints` has none.
        hashes: Verify the sha256 of every file of the snapshot (see `Verification`).
        skip: Steps, counted from 1, whose batches are not learned; the run remembers them.
        along: Steps after which the model is exported, too, to the folder that `exported_at` names.

    Returns:
        The last metrics.

    Raises:
        InputError: The snapshot has no images or its files changed, `out` or the checkpoints belong to another run,
            `resume_from` has no complete checkpoint, a step to skip was learned before, or the loss is NaN, infinite
            or a spike.
        OSError: A checkpoint could not be written.
        SystemExit: Status 143 after SIGTERM, once a checkpoint is written.
    """
    split = (SortedSplit if config.sorted_pairs else Split)(manifest, "train")
    if not split.has_images():
        raise InputError(
            f"snapshot {manifest.name} has no pictures to train on: publish one made with fetch.enabled=true"
        )
    places = _Places(out, checkpoints or str(out / "checkpoints"), resume_from)
    with Termination() as termination, init_distributed(config.timeout_s) as world:
        if not claim(out, identity(config, manifest), world):
            check_finished(out, skip)
            return last_metrics(out)
        total = steps_of(config, split)
        with (
            Verification(manifest, world, hashes=hashes, folder=places.checkpoints) as verification,
            closing(TrainStep(config, world, total)) as train_step,
        ):
            run = _Run(train_step, split, manifest, places, termination, verification)
            return run.finish(*run.train(skip, frozenset(along)))


class _Run:
    """One run of the loop, on one rank."""

    def __init__(
        self, train_step: TrainStep, split: Split, manifest: Manifest, places: _Places, termination: Termination,
        verification: Verification,
    ) -> None:  # fmt: skip
        self.train_step, self.config, self.world = train_step, train_step.config, train_step.world
        self.split, self.manifest, self.places = split, manifest, places
        self.termination, self.verification = termination, verification
        self.monitor = Monitor(places.out, speaks=self.world.first, total=train_step.total, snapshot=manifest.name)
        self.saved = self._checkpoints(places.checkpoints)

    def train(self, skip: Collection[int], along: frozenset[int]) -> tuple[int, frozenset[int]]:
        """Take the steps that are left; return how many were taken, and the numbers of those that were skipped."""
        config, out, world = self.config, self.places.out, self.world
        with self.monitor, self.saved:
            begun = self._restore()
            skipped = steps_to_skip(out, skip, self.saved.skipped, range(begun, self.train_step.total), world)
            self.saved.skipped = skipped
            self.monitor.start(begun, world.broadcast(recent_losses(out, begun) if world.first else None))
            world.together(lambda: _tell_of_cut_captions(self.split, self.train_step) if world.first else None)
            self.verification.start()
            steps = range(begun, self.train_step.total)
            for step, (batch, wait_s) in zip(steps, _timed(_batches(self.split, self.train_step, steps)), strict=True):
                started = time.perf_counter()
                metrics = self._learn(batch, step) if step + 1 not in skipped else None
                done = step + 1
                asked = self.termination.asked, self.verification.failed, self.verification.left
                stop, failed, unverified = world.all_reduce(*asked)
                if failed:
                    self.verification.stop()
                if not unverified:
                    self.verification.note()
                if done in along:
                    with self.monitor.busy("exporting"):
                        self._export_to(exported_at(out, done))
                self.saved.poll()
                if done % config.checkpoint_every == 0 or done == self.train_step.total or stop:
                    with self.monitor.busy("checkpointing"):
                        self.saved.save(self.train_step.distributed, self.train_step.optimizer, done)
                if metrics is None:
                    self.monitor.skipped(done)
                else:
                    self.monitor.step(done, metrics, wait_s, time.perf_counter() - started + wait_s)
                if stop:
                    raise SystemExit(143)
            with self.monitor.busy("checkpointing"):
                self.saved.wait()
            with self.monitor.busy("verifying"):
                while not self.verification.finished():
                    if world.all_reduce(self.termination.asked)[0]:
                        raise SystemExit(143)
                self.verification.note()
            with self.monitor.busy("exporting"):
                self._export(trained=bool(steps))
        return self.train_step.total, skipped

    def finish(self, step: int, skipped: frozenset[int]) -> dict[str, Any]:
        """Mark the run as complete; return the last metrics."""
        manifest, config, out = self.manifest, self.config, self.places.out
        if self.world.first:
            done = {
                "step": step, "snapshot": manifest.name, "manifest_sha256": manifest.sha256(),
                "strategy": manifest.strategy, "recipe": config.recipe, "seed": config.seed,
                "pairs_seen": (step - len(skipped)) * config.global_batch_size, "skipped_steps": sorted(skipped),
            }  # fmt: skip
            write_json(out / COMPLETE, done)
        return cast(dict[str, Any], self.world.broadcast(last_metrics(out) if self.world.first else None))

    def _restore(self) -> int:
        model, optimizer, elsewhere = self.train_step.distributed, self.train_step.optimizer, self.places.resume_from
        step = self.saved.restore(model, optimizer)
        if elsewhere is not None and not step:
            earlier = self._checkpoints(elsewhere)
            step = earlier.restore(model, optimizer)
            self.saved.skipped = earlier.skipped
            if not step:
                raise InputError(f"--resume-from: {elsewhere} holds no whole checkpoint to resume from")
        return step

    def _learn(self, batch: Batch, step: int) -> dict[str, Any]:
        """Take a step; return its metrics.

        Raises:
            InputError: The loss is NaN, infinite or a spike: no weights were updated.
        """
        loss = self.train_step.backward(batch)
        fault = self.monitor.strange(loss, self.config.spike_factor)
        if fault is not None:
            raise _astray(fault, step, batch, self.world, self.places.out)
        return self.train_step.update(batch, step)

    def _export(self, *, trained: bool) -> None:
        out = self.places.out
        self._export_to(out / "model")
        if self.places.checkpoints != str(out / "checkpoints"):
            self.world.together(lambda: self.saved.keep_model(out / "model", made=trained))

    def _export_to(self, folder: Path) -> None:
        export(self.train_step.distributed, self.train_step.model, folder, self.world)

    def _checkpoints(self, place: str) -> Checkpoints:
        return Checkpoints(
            place, self.world, identity(self.config, self.manifest), self.config.keep, self.monitor.saved
        )


def exported_at(out: Path, step: int) -> Path:
    """Return the folder of the model as it was after a step (see `train`)."""
    return out / "along" / str(step)


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
    captions = [caption or "" for caption in split.table(0, 0).column("caption").to_pylist()]
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
        f"to go on without them: --skip-step {step + 1}; to learn them: --set trainer.spike_factor=0"
    )
