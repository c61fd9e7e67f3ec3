"""Export a trained model to a self-contained folder: safetensors, the configs of the parts, the tokenizer."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from capsfusion_etl.errors import InputError, first_line
from capsfusion_etl.storage import remove, write_json
from huggingface_hub import load_torch_model, save_torch_state_dict
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.training.distributed import World

CONFIG = "capsfusion.json"


def export(spread_model: nn.Module, model: CaptionModel, folder: Path, world: World) -> None:
    """Write the model to `folder` atomically. All ranks must call this; the first one writes, the others wait."""
    weights = get_model_state_dict(spread_model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    world.together(lambda: _write(weights, model, folder) if world.first else None)


def _write(weights: dict[str, Any], model: CaptionModel, folder: Path) -> None:
    part = folder.with_name(f"{folder.name}.part")
    remove(part, within=folder.parent)
    part.mkdir(parents=True)
    # A weight gathered from shards may be a view of a larger storage, which would be written in full.
    save_torch_state_dict({name: _own(cast(Tensor, weight)) for name, weight in weights.items()}, part)
    model.vision.config.save_pretrained(part / "vision")
    if model.processor is not None:
        model.processor.save_pretrained(part / "vision")
    model.llm.config.save_pretrained(part / "llm")
    model.tokenizer.save_pretrained(part / "tokenizer")
    write_json(part / CONFIG, asdict(model.config))
    remove(folder, within=folder.parent)
    part.rename(folder)


def _own(weight: Tensor) -> Tensor:
    return weight if weight.untyped_storage().nbytes() == weight.nbytes else weight.clone()


def load(folder: Path, device: torch.device | None = None) -> CaptionModel:
    """Load a model that `export` wrote, in evaluation mode, to a device: by default the GPU if there is one.

    Raises:
        InputError: There is no model in `folder`, or another version of this package wrote it.
    """
    try:
        config = TrainerConfig(**json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except OSError:
        raise InputError(f"there is no model in {folder}: run `capsfusion train` first") from None
    except TypeError as error:
        raise InputError(f"another version of this package wrote the model in {folder}: {error}") from None
    model = CaptionModel(config, folder)
    try:
        load_torch_model(model, folder)
    except RuntimeError as error:
        raise InputError(
            f"another version of this package wrote the model in {folder}: {first_line(str(error))}"
        ) from None
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device).eval()
