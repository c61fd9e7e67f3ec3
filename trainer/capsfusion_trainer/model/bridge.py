"""The bridge between vision and language: a causal transformer whose learned queries cross-attend to the image."""

import torch
from torch import Tensor, nn
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5Stack


class Bridge(nn.Module):
    """Maps vision features (B, P, vision_width) to (B, queries, llm_width); each query sees those before it.

    The decoder is T5's: causal self-attention with relative positions, ReLU, cross-attention to the normalised
    features, whose keys and values are projected from `vision_width` to `width`. It is randomly initialised. With 12
    layers of width 768 and 12 heads it is Emu's CausalFormer, T5-base's decoder (CapsFusion, section 4.1, after Emu).
    """

    def __init__(
        self, *, vision_width: int, llm_width: int, queries: int, layers: int, heads: int, width: int | None = None
    ) -> None:
        super().__init__()
        width = width or vision_width
        self.norm = nn.LayerNorm(vision_width)
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.decoder = T5Stack(
            T5Config(
                d_model=width, d_kv=width // heads, d_ff=4 * width, num_layers=layers, num_heads=heads,
                dropout_rate=0.0, is_decoder=True, use_cache=False, feed_forward_proj="relu", vocab_size=1,
                eos_token_id=None, pad_token_id=None,
            )
        )  # fmt: skip
        del self.decoder.embed_tokens  # its inputs are the queries
        for block in self.decoder.block:
            cross = block.get_submodule("layer.1.EncDecAttention")
            for name in ("k", "v"):
                projection = nn.Linear(vision_width, width // heads * heads, bias=False)
                nn.init.normal_(projection.weight, std=vision_width**-0.5)  # T5's, for this width
                setattr(cross, name, projection)
        self.out = nn.Linear(width, llm_width)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, P, vision_width) to (B, queries, llm_width)."""
        queries = self.queries.expand(len(features), -1, -1)
        hidden = self.decoder(inputs_embeds=queries, encoder_hidden_states=self.norm(features)).last_hidden_state
        projected: Tensor = self.out(hidden)
        return projected
