"""The paper's multimodal model: a vision tower, a causal-transformer bridge with learned queries, a language model.

Source: CapsFusion, section 4.1 (after Emu): 32 queries cross-attend to the normalised vision features, a linear layer
projects them to the language model's width, and the loss covers the text only.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from capsfusion_etl.errors import InputError, first_line
from torch import Tensor, nn
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
from capsfusion_trainer.data.batch import PADDING, Encoding
from capsfusion_trainer.model.bridge import Bridge

SMALL = 64  # image size of the small vision tower, in pixels


class CaptionModel(nn.Module):
    """Predicts the next token of a caption from an image and the tokens before it.

    Args:
        config: The parts and their sizes.
        folder: Folder of an exported model: the configs of the parts are read from there, and no pretrained weights are
            loaded.

    Raises:
        InputError: A model that the config names cannot be loaded.
    """

    def __init__(self, config: TrainerConfig, folder: Path | None = None) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = _tokenizer(config, folder)
        self.vision, self.processor = _vision(config, folder)
        self.llm = _llm(config, folder, self.tokenizer)
        _check_tokenizer(self.tokenizer, self.llm, config)
        self.bridge = Bridge(
            vision_width=_width(self.vision), llm_width=self.llm.config.hidden_size, queries=config.queries,
            layers=config.bridge_layers, heads=config.bridge_heads,
        )  # fmt: skip
        pixels = _pixels(self.processor)
        self.image_size: int = config.image_size or pixels["size"]
        self.patches = 0  # features per image; known after the first forward pass
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(pixels["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(pixels["std"]).view(1, 3, 1, 1), persistent=False)
        self.vision.requires_grad_(not config.freeze_vision)
        self.llm.requires_grad_(not config.freeze_llm)

    @property
    def encoding(self) -> Encoding:
        """Converts samples to this model's tensors."""
        return Encoding(self.image_size, self.config.max_tokens, self.tokenizer)

    def encode_images(self, images: Tensor) -> Tensor:
        """Return the vision tower's features (B, P, vision_width) of images (B, 3, S, S) uint8."""
        pixels = ((images.float() / 255 - self.mean) / self.std).to(self.vision.dtype)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_vision):
            features: Tensor = self.vision(pixel_values=pixels).last_hidden_state
        return features

    def prefix(self, images: Tensor) -> Tensor:
        """Return the soft prompt (B, queries, llm_width) of images (B, 3, S, S) uint8, or of their features."""
        features = images if images.is_floating_point() else self.encode_images(images)
        self.patches = features.shape[1]
        if not torch.is_autocast_enabled(features.device.type):  # the features of a frozen tower may be bfloat16
            features = features.to(self.bridge.out.weight.dtype)
        prefix: Tensor = self.bridge(features)
        return prefix

    def forward(self, images: Tensor, tokens: Tensor, weights: Tensor) -> Tensor:
        """Return the loss of each row, summed over its tokens: (B,).

        Args:
            images: (B, 3, S, S) uint8, or their features (B, P, vision_width).
            tokens: (B, T), padded with PADDING.
            weights: (B,); rows with weight 0, whose image is unreadable, have loss 0.
        """
        logits = self.logits(images, tokens)
        labels = tokens.masked_fill(weights[:, None] == 0, PADDING)
        losses = nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=PADDING, reduction="none"
        )
        return losses.view(labels.shape).sum(dim=1)

    def logits(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits of each token given the image and the tokens before it: (B, T, vocabulary)."""
        prefix = self.prefix(images)
        words = self.llm.get_input_embeddings()(tokens.clamp(min=0))
        inputs = torch.cat([prefix.to(words.dtype), words], dim=1)
        logits: Tensor = self.llm(inputs_embeds=inputs, use_cache=False).logits
        return logits[:, prefix.shape[1] - 1 : -1]

    def vision_fingerprint(self) -> str:
        """Return 16 hex digits of a hash over the tower's weights, image size, normalisation and precision."""
        found = hashlib.sha256(f"{self.image_size} {self.config.bf16}".encode())
        for name, value in [*self.vision.state_dict().items(), ("mean", self.mean), ("std", self.std)]:
            found.update(name.encode())
            found.update(value.detach().contiguous().cpu().flatten().view(torch.uint8).numpy())
        return found.hexdigest()[:16]

    @torch.inference_mode()
    def generate(self, images: Tensor, *, max_tokens: int = 20, beams: int = 1) -> list[str]:
        """Return captions of images (B, 3, S, S) uint8: greedy, or by beam search with `beams` > 1."""
        return self._generate(self.prefix(images), max_tokens, beams)

    @torch.inference_mode()
    def complete(self, image: Tensor, tokens: list[int], *, max_tokens: int) -> str:
        """Return the greedy continuation of `tokens` for an image (1, 3, S, S) uint8."""
        words = self.llm.get_input_embeddings()(torch.tensor([tokens], dtype=torch.int64, device=image.device))
        [text] = self._generate(torch.cat([self.prefix(image).to(words.dtype), words], dim=1), max_tokens, beams=1)
        return text

    def _generate(self, inputs: Tensor, max_tokens: int, beams: int) -> list[str]:
        """Return the continuations of input embeddings (B, T, llm_width)."""
        out = self.llm.generate(
            inputs_embeds=inputs.to(self.llm.get_input_embeddings().weight.dtype),
            attention_mask=torch.ones(inputs.shape[:2], dtype=torch.int64, device=inputs.device),
            max_new_tokens=max_tokens, do_sample=False, num_beams=beams,
            pad_token_id=self.tokenizer.eos_token_id, eos_token_id=self.tokenizer.eos_token_id,
        )  # fmt: skip
        texts: list[str] = self.tokenizer.batch_decode(torch.as_tensor(out), skip_special_tokens=True)
        return [text.strip() for text in texts]


def _tokenizer(config: TrainerConfig, folder: Path | None) -> Any:
    """Return the language model's tokenizer; for the small model, one over bytes."""
    if config.llm_model is None:
        return ByT5Tokenizer()
    return _loaded(AutoTokenizer.from_pretrained, folder / "tokenizer" if folder else config.llm_model, "llm_model")


def _check_tokenizer(tokenizer: Any, llm: Any, config: TrainerConfig) -> None:
    """Check that every caption can end, and that every token has an embedding.

    Raises:
        InputError: the tokenizer has no end token, or more tokens than the language model has embeddings.
    """
    known = llm.get_input_embeddings().num_embeddings
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"trainer.llm_model: the tokenizer of {config.llm_model} has no end token (eos_token): set one"
        )
    if len(tokenizer) > known:
        raise InputError(
            f"trainer.llm_model: the tokenizer of {config.llm_model} has {len(tokenizer)} tokens, the model embeds "
            f"{known}: resize its embeddings, or use the tokenizer that belongs to it"
        )


def _vision(config: TrainerConfig, folder: Path | None) -> tuple[Any, Any]:
    """Return the tower, and the processor that knows its image size and normalisation (None for the small tower)."""
    if config.vision_model is None:
        shape = ViTConfig(
            hidden_size=config.vision_width, intermediate_size=4 * config.vision_width,
            num_hidden_layers=config.vision_layers, num_attention_heads=config.heads,
            image_size=config.image_size or SMALL, patch_size=config.patch_size,
        )  # fmt: skip
        return ViTModel(shape, add_pooling_layer=False), None
    source = folder / "vision" if folder else config.vision_model
    processor = _loaded(AutoImageProcessor.from_pretrained, source, "vision_model")
    dtype = _dtype(config, frozen=config.freeze_vision)
    if folder:
        tower = AutoModel.from_config(_loaded(AutoConfig.from_pretrained, source, "vision_model"), dtype=dtype)
    else:
        tower = _loaded(AutoModel.from_pretrained, source, "vision_model", dtype=dtype)
    return getattr(tower, "vision_model", tower), processor  # of CLIP, SigLIP and the like, only the image tower


def _pixels(processor: Any) -> dict[str, Any]:
    """Return `mean` and `std` of the channels, and the image `size` in pixels."""
    if processor is None:
        return {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "size": SMALL}
    if hasattr(processor, "data_config"):  # timm's
        said = processor.data_config
        return {"mean": said["mean"], "std": said["std"], "size": said["input_size"][-1]}
    size = dict(getattr(processor, "crop_size", None) or processor.size)
    return {"mean": processor.image_mean, "std": processor.image_std, "size": min(size.values())}


def _llm(config: TrainerConfig, folder: Path | None, tokenizer: Any) -> Any:
    if config.llm_model is None:
        shape = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=config.llm_width, num_hidden_layers=config.llm_layers,
            num_attention_heads=config.heads, intermediate_size=4 * config.llm_width,
            max_position_embeddings=config.queries + config.max_tokens + 1,
            bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        return LlamaForCausalLM(shape)
    dtype = _dtype(config, frozen=config.freeze_llm)
    if folder:
        shape = _loaded(AutoConfig.from_pretrained, folder / "llm", "llm_model")
        return AutoModelForCausalLM.from_config(shape, dtype=dtype)
    return _loaded(AutoModelForCausalLM.from_pretrained, config.llm_model, "llm_model", dtype=dtype)


def _dtype(config: TrainerConfig, *, frozen: bool) -> torch.dtype:
    """Return bfloat16 for frozen weights if the config allows it; trained weights are float32."""
    return torch.bfloat16 if config.bf16 and frozen else torch.float32


def _loaded(load: Callable[..., Any], source: str | Path, key: str, **options: Any) -> Any:
    try:
        return load(source, **options)
    except Exception as error:  # noqa: BLE001  of other people's loaders; timm's raise any
        reason = first_line(str(error)) or type(error).__name__
        raise InputError(f"trainer.{key}: cannot load {source}: {reason}") from None


def _width(tower: Any) -> int:
    """Return the width of a vision tower's features."""
    found = getattr(tower.config, "hidden_size", None) or getattr(tower.config, "num_features", None)
    return int(found or tower.timm_model.num_features)
