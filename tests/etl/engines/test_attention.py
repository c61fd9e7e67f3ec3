"""Test the attention of CPUs: it gives what transformers' own gives, with and without padding."""

import pytest
import torch
from capsfusion_etl.engines.generation.attention import share_keys
from transformers import LlamaConfig, LlamaForCausalLM


def model_of(groups: int, attention: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 6}
    config = LlamaConfig(vocab_size=50, num_key_value_heads=groups, **shape)
    model: LlamaForCausalLM = LlamaForCausalLM._from_config(config, attn_implementation=attention)
    return model.eval()


@pytest.mark.parametrize("groups", [6, 2, 1])
def test_sharing_keys_changes_no_logit(groups: int) -> None:
    model = model_of(groups, "sdpa")
    ids = torch.randint(0, 50, (3, 9))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    with torch.inference_mode():
        before = [model(ids, attention_mask=some).logits for some in (None, mask)]
        share_keys(model)
        assert model.config._attn_implementation != "sdpa"
        after = [model(ids, attention_mask=some).logits for some in (None, mask)]
    torch.testing.assert_close(after[0], before[0])
    torch.testing.assert_close(after[1][mask.bool()], before[1][mask.bool()])


def test_another_attention_stays() -> None:
    model = model_of(2, "eager")
    share_keys(model)
    assert model.config._attn_implementation == "eager"
