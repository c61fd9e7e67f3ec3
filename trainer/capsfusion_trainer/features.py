"""Features of a frozen vision tower, kept in a folder: another epoch, seed or strategy over the same pictures skips the
tower. Kept by the hash of the picture's bytes, below the hash of the tower's weights: a changed one never answers.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from capsfusion_etl.errors import InputError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.model import CaptionModel

_FILES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """Files of one picture's features (P, vision_width) each, in `folder`, as many ranks and runs as there are."""

    folder: Path

    @classmethod
    def of(cls, config: TrainerConfig, model: CaptionModel) -> "FeatureCache | None":
        """The cache that the config names, for this very tower; None if it names none."""
        return None if config.feature_cache is None else cls(Path(config.feature_cache, _fingerprint(config, model)))

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


def _fingerprint(config: TrainerConfig, model: CaptionModel) -> str:
    """Hash of all that features depend on besides the picture."""
    found = hashlib.sha256(f"{model.image_size} {config.bf16}".encode())
    for name, value in [*model.vision.state_dict().items(), ("mean", model.mean), ("std", model.std)]:
        found.update(name.encode())
        found.update(value.detach().contiguous().cpu().flatten().view(torch.uint8).numpy())
    return found.hexdigest()[:16]
