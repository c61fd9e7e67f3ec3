"""Tests of `train --dry-run`: the estimate against what a real step saves, and its table."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_trainer.config import micro_cpu
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.training.estimate import estimate, saved_bytes
from capsfusion_trainer.training.placement import recompute

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    "changed", [{}, {"bf16": True, "freeze_vision": True}, {"recompute": "selective"}, {"freeze_llm": True}]
)
def test_activations_are_those_of_a_real_step(changed: dict[str, Any]) -> None:
    config = replace(micro_cpu(), image_size=32, **changed)
    model = CaptionModel(config)
    recompute(model, config)
    two, four = saved_bytes(model, 2), saved_bytes(model, 4)
    found = estimate(config, ranks=2)
    assert found.per_pair == pytest.approx((four - two) / 2, rel=0.1)
    assert found.micro_batch_size == 4
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found.parameters["trained"] == trained
    assert (found.gradients, found.optimizer) == (4 * trained, 8 * trained)


def test_shards_divide_the_memory() -> None:
    whole, half = (estimate(replace(micro_cpu(), shard=shard), ranks=2) for shard in (False, True))
    assert half.gradients == whole.gradients / 2
    assert whole.weights / 2 < half.weights < whole.weights


def test_the_command_needs_no_snapshot(capsfusion: Cli) -> None:
    code, out, _ = capsfusion("train", "--dry-run", "--gpu", "L4", "--ranks", "4")
    assert code == 0
    assert "a rank of 4" in out
    assert "fits (L4, 24 GB)" in out
    code, _, err = capsfusion("train", "--dry-run", "--gpu", "TPU")
    assert (code, "'TPU' is unknown; known are H200" in err) == (2, True)
    code, _, err = capsfusion("train")
    assert (code, "say what to train on: --snapshot" in err) == (2, True)
    with pytest.raises(InputError, match="cannot load"):
        estimate(replace(micro_cpu(), llm_model="/nowhere"), ranks=1)
