"""Verify the files of a snapshot by their sha256, beside training if it takes long: terabytes take hours.

Once every file was verified, a note beside the checkpoints says so: a later attempt of the run compares all sizes, and
hashes one file in a hundred.
"""

import json
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self

from capsfusion_etl.snapshots.address import broken
from capsfusion_etl.snapshots.manifest import HASHED_AT_ONCE, LOOKED_AT_AT_ONCE, DataFile, Manifest
from capsfusion_etl.storage import as_path, write_json

from capsfusion_trainer.data.pin import SAMPLE
from capsfusion_trainer.training.distributed import World

NOTE = "verified.json"
_BEFORE_TRAINING_S = 60.0
_ROUND_S = 5.0
_SAY_EVERY = 10  # heartbeats


class Verification:
    """Hashes this rank's share of the files in threads; all ranks together hash every file once.

    Training begins when all is hashed, or after a minute. A faulty file that is found later stops the run at its next
    step, and no model is exported before every file was verified.

    Args:
        manifest: The snapshot.
        world: The ranks.
        hashes: Verify the files; otherwise nothing is read.
        folder: Folder or URL of the checkpoints, where the note is.
    """

    def __init__(self, manifest: Manifest, world: World, *, hashes: bool, folder: str) -> None:
        by_size = sorted(manifest.files, key=lambda file: -file.size) if hashes else []
        self._manifest, self._world, self._note = manifest, world, as_path(folder) / NOTE
        self._noted, first = world.broadcast((self._read_note(), random.randrange(SAMPLE)) if world.first else None)
        sampled = {file.path for file in by_size[min(first, len(by_size) - 1) :: SAMPLE]} if by_size else set()
        hashed = [file for file in by_size if not self._noted or file.path in sampled]
        mine: Sequence[DataFile] = by_size[world.rank :: world.size]
        self._hashed = frozenset(file.path for file in hashed)
        self._faults: list[str] = []
        self._left = sum(file.size for file in mine if file.path in self._hashed)
        self._total = sum(file.size for file in hashed)
        self._threads = ThreadPoolExecutor(LOOKED_AT_AT_ONCE if self._noted else HASHED_AT_ONCE)
        self._running = [self._threads.submit(self._verify, file) for file in mine]
        self._beats = 0
        self._noted = self._noted or not hashes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def failed(self) -> bool:
        """Whether this rank has found a fault."""
        return bool(self._faults)

    @property
    def left(self) -> int:
        """Bytes that this rank has not hashed yet."""
        return self._left

    def note(self) -> None:
        """Note that all ranks have verified their shares, if it is not known. Call it on all ranks."""
        if not self._noted and self._world.first:
            self._note.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._note, {"manifest_sha256": self._manifest.sha256()})
        self._noted = True

    def start(self) -> None:
        """Wait until all ranks have hashed their shares, but a minute at most.

        Raises:
            InputError: A file is missing or changed.
        """
        self._wait(_BEFORE_TRAINING_S)
        left = self._world.all_reduce(self._left)[0]
        if left and self._world.first:
            print(f"snapshot {self._manifest.name}: {_gb(left)} are hashed while training runs", flush=True)

    def finished(self) -> bool:
        """Wait some seconds; return whether every file is verified.

        Raises:
            InputError: A file is missing or changed.
        """
        self._wait(_ROUND_S)
        return self._world.all_reduce(self._left)[0] == 0

    def stop(self) -> None:
        """Raise the error of the faults that some rank has found."""
        faults = [fault for found in self._world.all_gather(self._faults) for fault in found]
        if faults:
            raise broken(self._manifest, faults)

    def _wait(self, seconds: float) -> None:
        self._world.together(lambda: wait(self._running, timeout=seconds), self._say)
        self.stop()

    def _verify(self, file: DataFile) -> None:
        try:
            fault = self._manifest.fault(file, hashes=file.path in self._hashed)
        except Exception as error:  # noqa: BLE001  of the file's store: without a result the file is not verified
            fault = f"{file.path} cannot be read: {error}"
        if fault is not None:
            self._faults.append(fault)
        if file.path in self._hashed:
            self._left -= file.size

    def _read_note(self) -> bool:
        try:
            known: Any = json.loads(self._note.read_text(encoding="utf-8"))
            return bool(known["manifest_sha256"] == self._manifest.sha256())
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _say(self) -> None:
        self._beats += 1
        if self._beats % _SAY_EVERY == 0 and self._world.first:  # the shares are alike
            done = self._total - self._left * self._world.size
            print(
                f"hashing snapshot {self._manifest.name}: about {_gb(max(done, 0))} of {_gb(self._total)}", flush=True
            )


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
