"""Features of a frozen vision tower, kept in a folder: another epoch, seed or strategy over the same pictures skips the
tower. Kept by the hash of the picture's bytes, below the hash of the tower's weights: a changed one never answers.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from capsfusion_etl.errors import InputError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

_FILES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """Files of one picture's features (P, vision_width) each, in `folder`, as many ranks and runs as there are."""

    folder: Path

    @classmethod
    def of(cls, folder: str, fingerprint: str) -> Self:
        """The cache in `folder` for the vision tower with this fingerprint."""
        return cls(Path(folder, fingerprint))

    def __contains__(self, image_id: str) -> bool:
        return self._path(image_id).is_file()

    def read(self, image_ids: list[str]) -> list[Tensor]:
        """Features of pictures that are here.

        Raises:
            InputError: a file is damaged, or was removed since.
        """
        with ThreadPoolExecutor(_FILES_AT_ONCE) as files:
            return list(files.map(self._read, image_ids))

    def write(self, image_ids: list[str], features: Tensor) -> None:
        """Keep (B, P, vision_width), each picture in a file of its own that is whole or not there."""
        with ThreadPoolExecutor(_FILES_AT_ONCE) as files:
            list(files.map(self._write, image_ids, features.cpu()))

    def _path(self, image_id: str) -> Path:
        return self.folder / image_id[:2] / f"{image_id}.safetensors"

    def _read(self, image_id: str) -> Tensor:
        path = self._path(image_id)
        try:
            return load_file(path)["features"]
        except FileNotFoundError:
            raise InputError(f"{path} was removed under the run: start it again, and it will be made again") from None
        except (SafetensorError, KeyError) as error:
            raise InputError(f"{path} is damaged ({error}): remove it, and it will be made again") from None

    def _write(self, image_id: str, features: Tensor) -> None:
        path = self._path(image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        save_file({"features": features.contiguous()}, part)
        part.replace(path)
