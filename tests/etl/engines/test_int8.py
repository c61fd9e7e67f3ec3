"""Test linear layers in int8 on a CPU."""

from pathlib import Path

import pytest
import torch
from capsfusion_etl.engines import FuserConfig, Question
from capsfusion_etl.engines.generation.int8 import PerToken, quantise, supported
from capsfusion_etl.engines.transformers import TransformersFuser
from torch import nn


@pytest.mark.skipif(not supported(), reason="this CPU has no int8 kernels in torch")
def test_one_loud_token_does_not_drown_the_others() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(64, 32, bias=False))
    x = torch.randn(1, 8, 64)
    x[0, 0] *= 1000
    exact = layer(x)
    ours = quantise(layer)
    assert isinstance(ours[0], PerToken)  # type: ignore[index]
    error = (ours(x) - exact).abs()[0, 1:].max() / exact[0, 1:].abs().max()
    plain = (ours[0].layer(x) - exact).abs()[0, 1:].max() / exact[0, 1:].abs().max()  # type: ignore[index]
    assert error < 0.03 < plain


@pytest.mark.skipif(not supported(), reason="this CPU has no int8 kernels in torch")
def test_any_model_can_be_run_in_int8(tiny_llama: Path) -> None:
    config = FuserConfig(name="transformers", model=str(tiny_llama), max_new_tokens=5, dtype="int8")
    assert len(TransformersFuser(config).fuse([Question("a" * 64, "Oslo", "A bridge.")])) == 1
