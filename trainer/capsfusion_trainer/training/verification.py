"""Verify the files of a snapshot by their sha256, beside training if it takes long: terabytes take hours."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

from capsfusion_etl.snapshots.manifest import DataFile, Manifest

from capsfusion_trainer.data.pin import broken
from capsfusion_trainer.training.distributed import World

_FILES_AT_ONCE = 4
_BEFORE_TRAINING_S = 60.0
_ROUND_S = 5.0
_SAY_EVERY = 10  # heartbeats


class Verification:
    """Hashes this rank's share of the files in threads; all ranks together hash every file once.

    Training begins when all is hashed, or after a minute. A faulty file that is found later stops the run at its next
    step, and no model is exported before every file was verified.
    """

    def __init__(self, manifest: Manifest, world: World, *, hashes: bool) -> None:
        by_size = sorted(manifest.files, key=lambda file: -file.size) if hashes else []
        mine: Sequence[DataFile] = by_size[world.rank :: world.size]
        self._manifest, self._world = manifest, world
        self._faults: list[str] = []
        self._left = sum(file.size for file in mine)
        self._total = sum(file.size for file in by_size)
        self._threads = ThreadPoolExecutor(_FILES_AT_ONCE)
        self._running = [self._threads.submit(self._verify, file) for file in mine]
        self._beats = 0

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
            fault = self._manifest.fault(file)
        except Exception as error:  # noqa: BLE001  of the file's store: without a result the file is not verified
            fault = f"{file.path} cannot be read: {error}"
        if fault is not None:
            self._faults.append(fault)
        self._left -= file.size

    def _say(self) -> None:
        self._beats += 1
        if self._beats % _SAY_EVERY == 0 and self._world.first:  # the shares are alike
            done = self._total - self._left * self._world.size
            print(
                f"hashing snapshot {self._manifest.name}: about {_gb(max(done, 0))} of {_gb(self._total)}", flush=True
            )


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
