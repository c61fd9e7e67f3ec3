"""What the models of a strategy are made from, as a short hash: scores belong to models that are made alike."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from capsfusion_etl.snapshots.manifest import Manifest, sha256_of

from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.data.snapshot import Split

_OF_A_RUN = ("steps", "seed")  # which `compare` sets, and the name of the run's folder tells


def fingerprints(config: TrainerConfig, manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Return for each strategy 12 hex digits of a hash of its pairs and captions, and of the settings of its models.

    Two machines get the same ones for equal content: a folder (a language model, a tokenizer) counts by its files, and
    a snapshot by its rows, wherever they lie. A setting at its default does not count, so that a new one changes
    nothing.

    Args:
        config: The settings of all runs.
        manifests: The snapshot of each strategy.
    """
    usual = asdict(TrainerConfig())
    chosen = {
        name: _content(value) for name, value in config.what().items() if name not in _OF_A_RUN and value != usual[name]
    }
    settings = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode())
    return {strategy: _with_rows(settings.copy(), manifest) for strategy, manifest in manifests.items()}


def _with_rows(found: "hashlib._Hash", manifest: Manifest) -> str:
    for row in sorted(Split(manifest, "train").columns("pair_id", "image_id", "caption"), key=str):
        found.update(json.dumps(row).encode())
    return found.hexdigest()[:12]


def _content(value: object) -> object:
    """Return a setting; for a folder a hash of its files."""
    if not isinstance(value, str) or not Path(value).is_dir():
        return value
    found = hashlib.sha256()
    for file in sorted(path for path in Path(value).rglob("*") if path.is_file()):
        found.update(f"{file.relative_to(value)} {sha256_of(file)}".encode())
    return found.hexdigest()
