"""Cache of a frozen vision tower's features: another epoch, seed or strategy on the same images skips the tower.

The key is the sha256 of the image bytes, in a folder named by the tower's fingerprint: a changed tower never hits.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self, TypeVar

from capsfusion_etl.errors import InputError
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

_FILES_AT_ONCE = 8
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """One file per image with its features (P, vision_width). Several ranks and runs may share `folder`."""

    folder: Path

    @classmethod
    def of(cls, folder: str, fingerprint: str) -> Self:
        """Return the cache in `folder` for the vision tower with this fingerprint."""
        return cls(Path(folder, fingerprint))

    @staticmethod
    def id_of(image: bytes) -> str:
        """Return the key of an image, given its bytes."""
        return sha256(image).hexdigest()

    def __contains__(self, image_id: str) -> bool:
        return self._path(image_id).is_file()

    def read(self, image_ids: list[str]) -> list[Tensor]:
        """Return the features of cached images.

        Raises:
            InputError: A file is damaged or missing.
        """
        return _for_each_file(self._read, image_ids)

    def write(self, image_ids: list[str], features: Tensor) -> None:
        """Store features (B, P, vision_width), one file per image, each written atomically."""
        _for_each_file(self._write, image_ids, features.cpu())

    def _path(self, image_id: str) -> Path:
        return self.folder / image_id[:2] / f"{image_id}.safetensors"

    def _read(self, image_id: str) -> Tensor:
        path = self._path(image_id)
        try:
            return load(path.read_bytes())["features"]  # in half the time of a map, for files this small
        except FileNotFoundError:
            raise InputError(f"{path} was removed during the run: run the same command again to recreate it") from None
        except (SafetensorError, KeyError) as error:
            raise InputError(
                f"{path} is damaged ({error}): remove it and run the same command again to recreate it"
            ) from None

    def _write(self, image_id: str, features: Tensor) -> None:
        path = self._path(image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        save_file({"features": features.contiguous()}, part)
        part.replace(path)


def _for_each_file(work: Callable[..., T], *arguments: Iterable[Any]) -> list[T]:
    """Return what `work` makes of each file's arguments, several files at once."""
    calls = list(zip(*arguments, strict=True))
    if len(calls) <= _FILES_AT_ONCE:  # threads would take longer than the files
        return [work(*call) for call in calls]
    with ThreadPoolExecutor(_FILES_AT_ONCE) as files:
        return list(files.map(lambda call: work(*call), calls))
