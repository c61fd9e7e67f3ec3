"""The paper's multimodal model: a vision tower, a causal-transformer bridge with learned queries, a language model.

Source: CapsFusion, section 4.1, after Emu: 32 queries cross-attend to the normalised vision features, a linear layer
projects them to the language model's width, and the loss covers the text only. The sequence is Emu's: BOS, a learned
marker, the embeddings of the image, another learned marker, caption, EOS.
"""

import hashlib
import inspect
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.data.batch import PADDING, Encoding
from capsfusion_trainer.model.bridge import Bridge
from capsfusion_trainer.model.decoding import Decoding
from capsfusion_trainer.model.parts import MARKERS, Parts, pixels_of, sequence_of, width_of


class CaptionModel(nn.Module):
    """Predicts the next token of a caption from an image and the tokens before it.

    Args:
        config: The parts and their sizes.
        folder: See `Parts`.
        weights: See `Parts`.

    Raises:
        InputError: A model that the config names cannot be loaded.
    """

    def __init__(self, config: TrainerConfig, folder: Path | None = None, *, weights: bool = True) -> None:
        super().__init__()
        self.config, parts = config, Parts(config, folder, weights)
        self.tokenizer = parts.tokenizer()
        self.vision, self.processor = parts.tower()
        self.llm = parts.llm(self.tokenizer)
        self.bridge = Bridge(
            vision_width=width_of(self.vision), llm_width=self.llm.config.hidden_size, queries=config.queries,
            layers=config.bridge_layers, heads=config.bridge_heads, width=config.bridge_width,
        )  # fmt: skip
        # As Emu's new tokens, the markers begin as the mean of all tokens.
        mean = self.llm.get_input_embeddings().weight.detach().float().mean(dim=0)
        self.markers = nn.Parameter(mean.expand(MARKERS, -1).clone())
        pixels = pixels_of(self.vision, self.processor)
        self.image_size: int = config.image_size or pixels["size"]
        self._keeps_last_logits = "logits_to_keep" in inspect.signature(self.llm.forward).parameters
        self.patches = 0  # features per image; known after the first forward pass
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(pixels["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(pixels["std"]).view(1, 3, 1, 1), persistent=False)
        self.vision.requires_grad_(not config.freeze_vision)
        self.llm.requires_grad_(not config.freeze_llm)
        # No dropout and no statistics of batches, whether the weights were loaded or only the shapes were built.
        self.vision.eval()
        self.llm.eval()

    @property
    def encoding(self) -> Encoding:
        """Converts samples to this model's tensors."""
        return Encoding(self.image_size, self.config.max_tokens, self.tokenizer)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.markers.device

    @property
    def prefix_length(self) -> int:
        """Number of positions before the caption: BOS if the tokenizer has one, the image and its two markers."""
        return (self.tokenizer.bos_token_id is not None) + self.config.queries + len(self.markers)

    def precision(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass: bfloat16 where training computes in it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16)

    def encode_images(self, images: Tensor) -> Tensor:
        """Return the vision tower's features (B, P, vision_width) of images (B, 3, S, S) uint8."""
        pixels = ((images.float() / 255 - self.mean) / self.std).to(self.vision.dtype)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_vision):
            features = self.vision(pixel_values=pixels).last_hidden_state
        return sequence_of(features, self.bridge.norm.normalized_shape[0])

    def prefix(self, images: Tensor) -> Tensor:
        """Return what precedes a caption, (B, prefix_length, llm_width).

        Args:
            images: (B, 3, S, S) uint8, or their features (B, P, vision_width).
        """
        features = images if images.is_floating_point() else self.encode_images(images)
        self.patches = features.shape[1]
        if not torch.is_autocast_enabled(features.device.type):  # the features of a frozen tower may be bfloat16
            features = features.to(self.bridge.out.weight.dtype)
        table = self.llm.get_input_embeddings()
        image = self.bridge(features).to(table.weight.dtype)
        begin, end = (marker.expand(len(image), 1, -1) for marker in self.markers.to(image.dtype))
        parts = [begin, image, end]
        if (bos := self.tokenizer.bos_token_id) is not None:
            parts.insert(0, table(torch.full((len(image), 1), bos, device=image.device)))
        return torch.cat(parts, dim=1)

    def forward(self, images: Tensor, tokens: Tensor, weights: Tensor) -> Tensor:
        """Return the loss of each row, summed over its tokens: (B,).

        Args:
            images: (B, 3, S, S) uint8, or their features (B, P, vision_width).
            tokens: (B, T), padded with PADDING.
            weights: (B,); rows with weight 0, whose image is unreadable, have loss 0.
        """
        return self.losses(self.prefix(images), tokens, weights)

    def losses(self, prefix: Tensor, tokens: Tensor, weights: Tensor) -> Tensor:
        """Return the loss of each row after its `prefix`, summed over its tokens: (B,). See `forward`."""
        labels = tokens.masked_fill(weights[:, None] == 0, PADDING)
        losses = nn.functional.cross_entropy(
            self.logits(prefix, tokens).flatten(0, 1).float(), labels.flatten(), ignore_index=PADDING, reduction="none"
        )
        return losses.view(labels.shape).sum(dim=1)

    def logits(self, prefix: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits of each token given the prefix and the tokens before it: (B, T, vocabulary)."""
        words = self.llm.get_input_embeddings()(tokens.clamp(min=0))
        # The head of a large vocabulary is expensive: not for the positions of the image.
        last = {"logits_to_keep": tokens.shape[1] + 1} if self._keeps_last_logits else {}
        logits: Tensor = self.llm(inputs_embeds=torch.cat([prefix, words], dim=1), use_cache=False, **last).logits
        return logits[:, -tokens.shape[1] - 1 : -1]

    def vision_fingerprint(self) -> str:
        """Return 16 hex digits of a hash over the tower's weights, image size, normalisation and precision."""
        found = hashlib.sha256(f"{self.image_size} {self.config.bf16}".encode())
        for name, value in [*self.vision.state_dict().items(), ("mean", self.mean), ("std", self.std)]:
            found.update(name.encode())
            found.update(value.detach().contiguous().cpu().flatten().view(torch.uint8).numpy())
        return found.hexdigest()[:16]

    @torch.inference_mode()
    def generate(self, images: Tensor, decoding: Decoding | None = None) -> list[str]:
        """Return captions of images (B, 3, S, S) uint8, on any device; by default as long as those of the training."""
        with self.precision():
            return self._continued(self.prefix(images.to(self.device)), decoding or Decoding.free(self))

    @torch.inference_mode()
    def complete(self, image: Tensor, tokens: list[int], *, max_new_tokens: int) -> str:
        """Return the greedy continuation of `tokens` for an image (1, 3, S, S) uint8."""
        with self.precision():
            prefix = self.prefix(image.to(self.device))
            words = self.llm.get_input_embeddings()(torch.tensor([tokens], dtype=torch.int64, device=self.device))
            [text] = self._continued(torch.cat([prefix, words], dim=1), Decoding(1, max_new_tokens))
        return text

    def _continued(self, inputs: Tensor, decoding: Decoding) -> list[str]:
        """Return the continuations of input embeddings (B, T, llm_width)."""
        eos = self.tokenizer.eos_token_id
        out = self.llm.generate(
            inputs_embeds=inputs, attention_mask=torch.ones(inputs.shape[:2], dtype=torch.int64, device=inputs.device),
            do_sample=False, pad_token_id=eos, eos_token_id=eos, **decoding.options(),
        )  # fmt: skip
        texts: list[str] = self.tokenizer.batch_decode(torch.as_tensor(out), skip_special_tokens=True)
        return [text.strip() for text in texts]
