"""Linear layers in int8 on a CPU: 8-bit weights for each output, 8-bit inputs for each token.

torch's dynamic quantisation has one scale for the inputs of a whole batch, and a few tokens with huge activations (the
first of a text, as a rule) leave the others a handful of levels: a tenth of the names was lost. Each token is therefore
brought to -1..1 before the layer and back behind it, so that the one scale fits all of them.
"""

import warnings
from typing import Any, cast

import torch
from torch import nn


class PerToken(nn.Module):
    """A dynamically quantised linear layer whose inputs are scaled token by token; it must have no bias."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out), float32."""
        largest = x.abs().amax(dim=-1, keepdim=True).clamp_min(1e-6)
        return cast(torch.Tensor, self.layer(x / largest)) * largest


def supported() -> bool:
    """Does this torch multiply in int8 on this CPU?"""
    return "fbgemm" in torch.backends.quantized.supported_engines


def quantise(model: nn.Module) -> nn.Module:
    """Replace the linear layers without a bias; the others stay as they are."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    names = [n for n, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer.bias is None]
    how: Any = dict.fromkeys(names, per_channel_dynamic_qconfig)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao, its successor, has no int8 kernels for this
        quantised: nn.Module = quantize_dynamic(model, how, dtype=torch.qint8)
    for name in names:
        parent, _, last = name.rpartition(".")
        holder = quantised.get_submodule(parent)
        setattr(holder, last, PerToken(cast(nn.Module, getattr(holder, last))))
    return quantised
