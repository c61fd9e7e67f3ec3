"""Linear layers in int8 on a CPU: weights are quantised per output channel, inputs per token.

Dynamic quantisation in torch uses one scale for the inputs of a whole batch. A few tokens with huge activations,
usually the first of a text, then leave only a few levels for all others; a tenth of the names was lost that way. So
each token is scaled to -1..1 before the layer and back after it, and the one scale fits all tokens.
"""

import warnings
from typing import Any, cast

import torch
from torch import nn


class PerToken(nn.Module):
    """Wrapper that scales the inputs of a dynamically quantised linear layer token by token; no bias is allowed."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float32 inputs of shape (..., in) to outputs of shape (..., out)."""
        largest = x.abs().amax(dim=-1, keepdim=True).clamp_min(1e-6)
        return cast(torch.Tensor, self.layer(x / largest)) * largest


def supported() -> bool:
    """Return whether this build of torch can multiply in int8 on this CPU (FBGEMM)."""
    return "fbgemm" in torch.backends.quantized.supported_engines


def quantise(model: nn.Module) -> nn.Module:
    """Return a copy of `model` whose linear layers without a bias compute in int8; the other layers do not change."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    names = [n for n, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer.bias is None]
    how: Any = dict.fromkeys(names, per_channel_dynamic_qconfig)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated for torchao, which has no int8 kernels for this
        quantised: nn.Module = quantize_dynamic(model, how, dtype=torch.qint8)
    for name in names:
        parent, _, last = name.rpartition(".")
        holder = quantised.get_submodule(parent)
        setattr(holder, last, PerToken(cast(nn.Module, getattr(holder, last))))
    return quantised
