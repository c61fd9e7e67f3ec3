"""Tests of what precedes a caption, and of how captions are decoded."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_trainer.config import micro_cpu
from capsfusion_trainer.data.image import decode
from capsfusion_trainer.evaluation.likelihood import Asked, mean_log_likelihoods, split_tokens
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.model.decoding import Decoding, benchmark_caption
from capsfusion_trainer.train import train
from PIL import Image
from tokenizers import Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerFast

TINY = replace(micro_cpu(), steps=2, global_batch_size=4, llm_width=32, vision_width=32, image_size=32)


def test_bos_and_two_markers_surround_the_image(tiny_llama: Path) -> None:
    """The sequence of Emu: BOS, marker, 32 embeddings, marker, caption."""
    torch.manual_seed(0)
    model = CaptionModel(replace(TINY, llm_model=str(tiny_llama))).eval()
    assert model.prefix_length == 34  # its tokenizer has no BOS
    model.tokenizer.bos_token = "<image>"
    images = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    prefix, table = model.prefix(images), model.llm.get_input_embeddings().weight
    assert prefix.shape == (2, 35, 16) == (2, model.prefix_length, table.shape[1])
    assert torch.equal(prefix[:, 0], table[model.tokenizer.bos_token_id].expand(2, -1))
    assert torch.allclose(prefix[0, 1], table.mean(dim=0), atol=1e-6)
    assert torch.equal(prefix[0, 34], model.markers[1])
    assert torch.allclose(prefix[:, 2:34], model.bridge(model.encode_images(images)), atol=1e-6)


def test_a_benchmark_is_decoded_as_emu_does(tiny_llama: Path) -> None:
    words, bytes_ = CaptionModel(replace(TINY, llm_model=str(tiny_llama))), CaptionModel(TINY)
    words.tokenizer.add_tokens([f"<{i}>" for i in range(1000)])
    expected = {"max_new_tokens": 20, "num_beams": 5, "min_new_tokens": 8, "length_penalty": -1.0}
    assert Decoding.benchmark(words).options() == expected
    assert Decoding.benchmark(words, max_new_tokens=5).options()["min_new_tokens"] == 5
    # Twenty bytes are no caption.
    assert Decoding.benchmark(bytes_).options() == {"max_new_tokens": 160, "num_beams": 5, "length_penalty": 1.0}
    assert Decoding.free(words).options() == {"max_new_tokens": 160, "num_beams": 1}


@pytest.mark.parametrize(
    ("said", "scored"),
    [
        ("A man in Lisbon. He is old.", "a man in lisbon"), ("A dog.\nA cat.", "a dog"), ("", ""),
        ("Mt. Fuji", "mt"),  # so does Emu's script
    ],
)  # fmt: skip
def test_the_first_sentence_is_scored_in_lower_case(said: str, scored: str) -> None:
    assert benchmark_caption(said) == scored


def test_continuations_are_tokenized_with_their_prompt(tiny_llama: Path) -> None:
    """The mean log-likelihood is that of the tokens after the prompt, also in a padded batch."""
    torch.manual_seed(0)
    model = CaptionModel(replace(TINY, llm_model=str(tiny_llama))).eval()
    images = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    asked = [Asked("Question: what?\nAnswer:", ("a man", "a woman with a long name")), Asked("The", ("dog", "cat"))]
    found = mean_log_likelihoods(model, images, asked)
    for image, (one, means) in enumerate(zip(asked, found, strict=True)):
        for said, mean in zip(one.continuations, means, strict=True):
            whole = model.tokenizer(f"{one.prompt} {said}", add_special_tokens=False)["input_ids"]
            start = len(model.tokenizer(one.prompt, add_special_tokens=False)["input_ids"])
            ids = torch.tensor([whole])
            likely = model.logits(model.prefix(images[image : image + 1]), ids).log_softmax(-1)[0]
            expected = likely.gather(1, ids[0][:, None])[start:].mean().item()
            assert mean == pytest.approx(expected, abs=1e-4)


def test_no_stray_token_begins_a_choice() -> None:
    """As with LLaMA-2's tokenizer, which puts a blank before every text."""
    vocabulary = [("<unk>", 0.0), *((token, -1.0) for token in ("▁", "▁a", "▁man", "▁What", "?"))]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    model = SimpleNamespace(tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    assert tokenizer.encode(" a man").tokens == ["▁", "▁a", "▁man"]
    ids, start = split_tokens(model, "What?", "a man")  # type: ignore[arg-type]
    assert model.tokenizer.convert_ids_to_tokens(ids[start:]) == ["▁a", "▁man"]


def test_narrow_pictures_are_pictures(tmp_path: Path) -> None:
    for size in ((1, 1), (20_000, 1), (1, 20_000)):
        Image.new("RGB", size, "red").save(tmp_path / "x.png")
        found = decode((tmp_path / "x.png").read_bytes(), 32)
        assert found is not None
        assert found.shape == (3, 32, 32)


def test_a_snapshot_of_one_row_trains(snapshot: Callable[..., Path], tmp_path: Path) -> None:
    last = train(TINY, open_snapshot(f"{snapshot(1, broken=())}@first"), tmp_path / "out")
    assert (last["step"], last["pairs"]) == (2, 1)
