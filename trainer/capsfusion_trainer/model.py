"""The paper's multimodal model: a vision tower, a causal-transformer bridge with learned queries, a language model.

Source: CapsFusion, section 4.1 (after Emu): 32 queries cross-attend to the normalised vision features, a linear layer
takes them into the language model's width, the loss is on the text alone.
"""

import io

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from transformers import ByT5Tokenizer, LlamaConfig, LlamaForCausalLM, ViTConfig, ViTModel

from capsfusion_trainer.config import TrainerConfig

IGNORE = -100  # label of a token that the loss skips


class Bridge(nn.Module):
    """Vision features (B, P, vision_width) to (B, queries, llm_width); query i sees the queries before it."""

    def __init__(self, config: TrainerConfig) -> None:
        super().__init__()
        width = config.vision_width
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(config.queries, width) * 0.02)
        layer = nn.TransformerDecoderLayer(
            width, config.heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, config.bridge_layers, norm=nn.LayerNorm(width))
        self.out = nn.Linear(width, config.llm_width)
        mask = nn.Transformer.generate_square_subsequent_mask(config.queries)
        self.register_buffer("causal", mask, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Shapes as in the class."""
        queries = self.queries.expand(len(features), -1, -1)
        hidden = self.decoder(queries, self.norm(features), tgt_mask=self.causal, tgt_is_causal=True)
        projected: Tensor = self.out(hidden)
        return projected


class CaptionModel(nn.Module):
    """Pictures and the caption so far in, the next bytes out."""

    def __init__(self, config: TrainerConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = ByT5Tokenizer()
        self.vision = ViTModel(
            ViTConfig(
                hidden_size=config.vision_width, intermediate_size=4 * config.vision_width,
                num_hidden_layers=config.vision_layers, num_attention_heads=config.heads,
                image_size=config.image_size, patch_size=config.patch_size,
            ),
            add_pooling_layer=False,
        )  # fmt: skip
        self.bridge = Bridge(config)
        self.llm = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(self.tokenizer), hidden_size=config.llm_width, num_hidden_layers=config.llm_layers,
                num_attention_heads=config.heads, intermediate_size=4 * config.llm_width,
                max_position_embeddings=config.queries + config.max_tokens + 1,
                bos_token_id=None, eos_token_id=self.tokenizer.eos_token_id, pad_token_id=self.tokenizer.pad_token_id,
            )
        )  # fmt: skip

    def prefix(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) to the soft prompt (B, queries, llm_width)."""
        prefix: Tensor = self.bridge(self.vision(pixel_values=pictures).last_hidden_state)
        return prefix

    def forward(self, pictures: Tensor, tokens: Tensor, weights: Tensor) -> tuple[Tensor, int]:
        """Summed loss over the text tokens of rows with weight 1, and how many tokens that were.

        Args:
            pictures: (B, 3, S, S).
            tokens: (B, T), padded with the tokenizer's pad token.
            weights: (B,), 0 for a picture that could not be read.
        """
        prefix = self.prefix(pictures)
        inputs = torch.cat([prefix, self.llm.get_input_embeddings()(tokens)], dim=1)
        real = (tokens != self.tokenizer.pad_token_id) & (weights[:, None] > 0)
        logits = self.llm(inputs_embeds=inputs).logits[:, prefix.shape[1] - 1 : -1]
        labels = tokens.masked_fill(~real, IGNORE)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum")
        return loss, int(real.sum())

    @torch.inference_mode()
    def describe(self, pictures: Tensor, max_tokens: int = 80) -> list[str]:
        """Greedy captions of (B, 3, S, S)."""
        out = self.llm.generate(  # type: ignore[misc]
            inputs_embeds=self.prefix(pictures), max_new_tokens=max_tokens, do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        texts: list[str] = self.tokenizer.batch_decode(torch.as_tensor(out), skip_special_tokens=True)
        return texts


def encode_picture(data: bytes, size: int) -> Tensor | None:
    """(3, size, size) in -1..1; None if the bytes cannot be decoded."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            square = ImageOps.exif_transpose(opened).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    except (OSError, ValueError, SyntaxError):
        return None
    pixels = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).view(size, size, 3)
    return pixels.permute(2, 0, 1).float() / 127.5 - 1.0
