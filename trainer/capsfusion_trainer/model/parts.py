"""Load the parts of the model: a tokenizer, a vision tower and a language model, pretrained or small and random."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from capsfusion_etl.errors import InputError, first_line
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    ByT5Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTModel,
)  # fmt: skip

from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.model import lite_tower

SMALL = 64  # image size of the small vision tower, in pixels
MARKERS = 2  # learned vectors around an image's embeddings


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the parts come from.

    Attributes:
        config: The parts and their sizes.
        folder: Folder of an exported model, whose configs are read instead of those that `config` names.
        weights: Load the pretrained weights of named models; if false, only their shapes are built. Those of an
            exported model are never loaded here.

    All methods raise InputError if a model that the config names cannot be loaded.
    """

    config: TrainerConfig
    folder: Path | None = None
    weights: bool = True

    def tokenizer(self) -> Any:
        """Return the language model's tokenizer; for the small model, the one that is named, or one over bytes."""
        config = self.config
        if config.llm_model is None and config.tokenizer is None:
            return ByT5Tokenizer()
        source = self.folder / "tokenizer" if self.folder else config.llm_model or config.tokenizer
        return _loaded(AutoTokenizer.from_pretrained, source, "llm_model" if config.llm_model else "tokenizer")

    def tower(self) -> tuple[Any, Any]:
        """Return the vision tower, and the processor that knows its image size (None for the small tower)."""
        config = self.config
        if config.vision_model is None:
            shape = ViTConfig(
                hidden_size=config.vision_width, intermediate_size=4 * config.vision_width,
                num_hidden_layers=config.vision_layers, num_attention_heads=config.heads,
                image_size=config.image_size or SMALL, patch_size=config.patch_size,
            )  # fmt: skip
            return ViTModel(shape, add_pooling_layer=False), None
        if config.vision_model == lite_tower.NAME:
            return _loaded(
                lite_tower.LiteTower, None, "vision_model", weights=self.folder is None and self.weights
            ), None
        source = self.folder / "vision" if self.folder else config.vision_model
        _check_tower(str(source))
        processor = _loaded(AutoImageProcessor.from_pretrained, source, "vision_model")
        tower = self._model(AutoModel, source, "vision_model", frozen=config.freeze_vision)
        return getattr(tower, "vision_model", tower), processor  # of CLIP, SigLIP and the like, only the image tower

    def llm(self, tokenizer: Any) -> Any:
        """Return the language model, which must embed every token of the tokenizer."""
        config = self.config
        if config.llm_model is None:
            shape = LlamaConfig(
                vocab_size=len(tokenizer), hidden_size=config.llm_width, num_hidden_layers=config.llm_layers,
                num_attention_heads=config.heads, intermediate_size=4 * config.llm_width,
                max_position_embeddings=config.queries + MARKERS + config.max_tokens + 1,
                bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
            return LlamaForCausalLM(shape)
        source = self.folder / "llm" if self.folder else config.llm_model
        llm = self._model(AutoModelForCausalLM, source, "llm_model", frozen=config.freeze_llm)
        _check_tokenizer(tokenizer, llm, config.llm_model)
        room = getattr(llm.config, "max_position_embeddings", None)
        needed = (tokenizer.bos_token_id is not None) + config.queries + MARKERS + config.max_tokens
        if room is not None and needed > room:
            raise InputError(
                f"trainer.llm_model: {config.llm_model} has {room} positions, image and caption need {needed}: lower "
                "trainer.max_tokens or trainer.queries"
            )
        return llm

    def _model(self, kind: Any, source: str | Path, key: str, *, frozen: bool) -> Any:
        """Frozen weights are bfloat16 if the config allows it; trained weights are float32."""
        dtype = torch.bfloat16 if self.config.bf16 and frozen else torch.float32
        if self.folder is None and self.weights:
            return _loaded(kind.from_pretrained, source, key, dtype=dtype)
        return _loaded(kind.from_config, _loaded(AutoConfig.from_pretrained, source, key), key, dtype=dtype)


def pixels_of(tower: Any, processor: Any) -> dict[str, Any]:
    """Return `mean` and `std` of the channels, and the image `size` in pixels."""
    if isinstance(tower, lite_tower.LiteTower):
        return lite_tower.PIXELS
    if processor is None:
        return {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "size": SMALL}
    if hasattr(processor, "data_config"):  # timm's
        said = processor.data_config
        return {"mean": said["mean"], "std": said["std"], "size": said["input_size"][-1]}
    size = dict(getattr(processor, "crop_size", None) or processor.size)
    return {"mean": processor.image_mean, "std": processor.image_std, "size": min(size.values())}


def width_of(tower: Any) -> int:
    """Return the width of a vision tower's features."""
    config = tower.config
    if sizes := getattr(config, "hidden_sizes", None):  # of a convolutional tower, one for each stage
        return int(sizes[-1])
    found = getattr(config, "hidden_size", None) or getattr(config, "num_features", None)
    return int(found or tower.timm_model.num_features)


def sequence_of(features: Tensor, width: int) -> Tensor:
    """Return features as (B, P, width), also the maps of convolutional towers: (B, width, H, W) or (B, H, W, width)."""
    if features.dim() != 4:
        return features
    return features.flatten(2).transpose(1, 2) if features.shape[1] == width else features.flatten(1, 2)


def _check_tower(source: str) -> None:
    """Refuse the files of open_clip, and names in timm's account that timm does not know.

    Raises:
        InputError: The message says which name to use instead.
    """
    folder = Path(source)
    if (folder / "open_clip_config.json").is_file() and not (folder / "config.json").is_file():
        raise InputError(
            f"trainer.vision_model: {source} holds open_clip's files only: use the same tower in timm's or "
            "transformers' format, such as timm/vit_base_patch16_clip_224.openai or openai/clip-vit-base-patch16"
        )
    if source.startswith("timm/") and not folder.is_dir() and source[5:] not in (known := timm.list_pretrained()):
        near = difflib.get_close_matches(source[5:], known, n=1, cutoff=0.3)
        raise InputError(f"trainer.vision_model: timm has no {source}; did you mean timm/{near[0] if near else '...'}?")


def _check_tokenizer(tokenizer: Any, llm: Any, name: str) -> None:
    """Check that every caption can end, and that every token has an embedding."""
    known = llm.get_input_embeddings().num_embeddings
    if tokenizer.eos_token_id is None:
        raise InputError(f"trainer.llm_model: the tokenizer of {name} has no end token (eos_token): set one")
    if len(tokenizer) > known:
        raise InputError(
            f"trainer.llm_model: the tokenizer of {name} has {len(tokenizer)} tokens, the model embeds {known}: resize "
            "its embeddings, or use the tokenizer that belongs to it"
        )


def _loaded(load: Callable[..., Any], source: Any, key: str, **options: Any) -> Any:
    try:
        return load(*([] if source is None else [source]), **options)
    except Exception as error:  # noqa: BLE001  of other people's loaders; timm's raise any
        reason = first_line(str(error)) or type(error).__name__
        named = getattr(source, "name_or_path", source)
        raise InputError(f"trainer.{key}: cannot load {named}: {reason}") from None
