"""Checkpoints: written in the background, atomic, and loadable with any number of ranks.

A checkpoint such as `step-000000020` is valid only with its marker `complete.json`, which is written last and lists
every file with its size. The folder of the checkpoints may be an fsspec URL (s3://, gs://...).
"""

import json
import re
from collections.abc import Callable, Collection
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import fsspec
import torch.distributed as dist
from capsfusion_etl.errors import InputError
from capsfusion_etl.storage import as_path, is_remote
from torch import nn
from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader, FsspecWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.optim import Optimizer

from capsfusion_trainer.training.distributed import World
from capsfusion_trainer.training.export import CONFIG

MARKER = "complete.json"
# Frozen weights are not saved: they are loaded from their source again.
_OPTIONS = StateDictOptions(ignore_frozen_params=True, strict=False)


class Checkpoints:
    """The checkpoints of a run, of which the last `keep` stay.

    Args:
        folder: Folder or fsspec URL.
        world: The ranks.
        run: Identity of the run; checkpoints of another run are refused.
        keep: Number of complete checkpoints that are kept.
        told: Called with the step of each checkpoint that is complete or restored.

    Raises:
        InputError: `folder` is a URL of an unknown kind.
        MissingDependencyError: The library for such URLs is not installed.
    """

    def __init__(self, folder: str, world: World, run: str, keep: int, told: Callable[[int], None]) -> None:
        self._remote = is_remote(folder)
        if self._remote:
            as_path(folder)  # raises an error that says what to install
        self._fs, self._root = fsspec.core.url_to_fs(folder)
        self._folder, self._world, self._run, self._keep = folder.rstrip("/"), world, run, keep
        self._told = told
        self.skipped: Collection[int] = ()  # steps that the run skips; a checkpoint keeps them
        # A group of its own, since a save communicates at the same time as the training.
        self._group = dist.new_group(backend="gloo")
        self._pending: tuple[int, Future[Any]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Finish a pending save, except after a RuntimeError: another rank may be lost, and waiting for it would hang.
        if kind is None or not issubclass(kind, RuntimeError):
            self.wait()

    def save(self, model: nn.Module, optimizer: Optimizer, step: int) -> None:
        """Copy the state and write it in the background, after the save before has finished."""
        self.wait()
        name = self._name(step)
        if self._world.first and self._fs.exists(f"{self._root}/{name}"):
            self._fs.rm(f"{self._root}/{name}", recursive=True)  # incomplete, left by a killed run
        dist.barrier()
        writer = (FsspecWriter if self._remote else FileSystemWriter)(f"{self._folder}/{name}")
        future = async_save(_state(model, optimizer), storage_writer=writer, process_group=self._group)
        self._pending = step, cast(Future[Any], future)

    def poll(self) -> None:
        """Mark the pending checkpoint as complete if it has been written."""
        if self._pending is not None and self._pending[1].done():
            self.wait()

    def wait(self) -> None:
        """Wait for the pending checkpoint and mark it as complete.

        Raises:
            OSError: It could not be written; earlier checkpoints are kept.
        """
        if self._pending is None:
            return
        (step, future), self._pending = self._pending, None
        try:
            future.result()
        except CheckpointException as error:
            raise OSError("; ".join(sorted({str(e[0]) for e in error.failures.values()}))) from None
        if self._world.first:
            self._mark(step)
        self._told(step)

    def restore(self, model: nn.Module, optimizer: Optimizer) -> int:
        """Load the newest complete checkpoint and return its step; 0 if there is none.

        Raises:
            InputError: The checkpoints belong to another run.
        """
        step, self.skipped, fault = self._world.broadcast(self._newest() if self._world.first else None)
        if fault is not None:
            raise InputError(fault)
        if step:
            path = f"{self._folder}/{self._name(step)}"
            state = _state(model, optimizer)
            reader = FsspecReader(path) if self._remote else FileSystemReader(path)
            load(state, storage_reader=reader)
            set_state_dict(
                model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"], options=_OPTIONS
            )
            self._told(step)
        return int(step)

    def keep_model(self, folder: Path, *, made: bool) -> None:
        """Copy the finished model beside the checkpoints, since `folder` may be lost with its machine.

        The first rank copies, without collectives: `World.together` lets the others wait.

        Object stores cannot move a folder atomically, so the config, which makes a model valid, is deleted first and
        copied last.

        Args:
            folder: Folder of the exported model.
            made: Whether this process trained any steps; if not, an existing valid copy is kept.
        """
        target = f"{self._root}/model"
        if self._world.first and (made or not self._fs.exists(f"{target}/{CONFIG}")):
            if self._fs.exists(f"{target}/{CONFIG}"):
                self._fs.rm_file(f"{target}/{CONFIG}")
            if self._fs.exists(target):
                self._fs.rm(target, recursive=True)
            files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
            for file in sorted(files, key=lambda file: file.name == CONFIG):
                self._fs.makedirs(f"{target}/{file.parent}", exist_ok=True)
                self._fs.put_file(str(folder / file), f"{target}/{file}")

    def _newest(self) -> tuple[int, list[int], str | None]:
        """Return step (0 if there is none) and skipped steps of the newest complete checkpoint, and what is wrong."""
        for name in sorted(self._names(), reverse=True):
            marker = self._marker(name)
            try:
                fault = self._fault(name, marker)
            except InputError as error:
                return 0, [], str(error)
            if fault is None:
                return int(name.rpartition("-")[2]), (marker or {}).get("skipped_steps", []), None
            print(f"checkpoint {name} is passed over: {fault}", flush=True)
        return 0, [], None

    def _marker(self, name: str) -> dict[str, Any] | None:
        try:
            return cast(dict[str, Any], json.loads(self._fs.cat_file(f"{self._root}/{name}/{MARKER}")))
        except (FileNotFoundError, ValueError):
            return None

    def _fault(self, name: str, marker: dict[str, Any] | None) -> str | None:
        if marker is None:
            return "it was never finished"
        if marker["run"] != self._run:
            raise InputError(
                f"{self._folder} holds checkpoints of a run with other settings or data: remove them, or use another "
                "--out or --checkpoints"
            )
        for file, size in marker["files"].items():
            path = f"{self._root}/{name}/{file}"
            found = self._fs.size(path) if self._fs.exists(path) else None
            if found != size:
                return f"{file} has {found} bytes, not {size}" if found is not None else f"{file} is missing"
        return None

    def _mark(self, step: int) -> None:
        folder = f"{self._root}/{self._name(step)}"
        files = {path.rpartition("/")[2]: self._fs.size(path) for path in self._fs.ls(folder, detail=False)}
        files.pop(MARKER, None)
        said = {"step": step, "run": self._run, "skipped_steps": sorted(self.skipped), "files": files}
        marker = json.dumps(said).encode()
        self._fs.pipe_file(f"{folder}/{MARKER}.part", marker)
        self._fs.mv(f"{folder}/{MARKER}.part", f"{folder}/{MARKER}")
        names = sorted(self._names())
        whole = [name for name in names if self._fs.exists(f"{self._root}/{name}/{MARKER}")]
        for name in set(names) - set(whole[-self._keep :]):  # includes incomplete ones
            self._fs.rm(f"{self._root}/{name}", recursive=True)

    def _names(self) -> list[str]:
        if not self._fs.exists(self._root):
            return []
        self._fs.invalidate_cache()
        names = (path.rstrip("/").rpartition("/")[2] for path in self._fs.ls(self._root, detail=False))
        return [name for name in names if re.fullmatch(r"step-\d{9}", name)]

    @staticmethod
    def _name(step: int) -> str:
        return f"step-{step:09d}"


def _state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    weights, moments = get_state_dict(model, optimizer, options=_OPTIONS)
    return {"model": weights, "optimizer": moments}
