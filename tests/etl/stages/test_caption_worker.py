"""What a captioner writes is unwrapped and judged, as the answers of fusers are."""

import pytest
from capsfusion_etl.engines import Answer, CaptionerConfig
from capsfusion_etl.stages.caption.worker import checked

BLIP = CaptionerConfig(name="transformers", model="m")


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("a dog on a lawn", "a dog on a lawn"),
        ("```\nA dog\non a lawn.\n```", "A dog on a lawn."),
        ("<think>It has fur.</think>**Caption:** A **brown** dog.", "A brown dog."),
        ("- A dog.", "A dog."),
        ('{"caption": "A dog."', "A dog."),
        ("", None),
        (None, None),
    ],
)
def test_clear_captions(text: str | None, caption: str | None) -> None:
    assert checked(Answer(text, prompt_tokens=3), BLIP) == Answer(caption, prompt_tokens=3)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("I'm sorry, I can't help with that.", "refused by the judge: refusal: I'm sorry"),
        ("As an AI I see no image.", "refused by the judge: refusal: As an AI"),
        ("A page of https://a.example/x", "refused by the judge: residue: https://"),
        ("...", "refused by the judge: empty: no word"),
        ("a dog and a cat " * 9, "refused by the judge: repetition: a dog and"),
        ("<think>It has fur", "the answer is reasoning without a caption"),
    ],
)
def test_what_is_no_caption(text: str, error: str) -> None:
    answer = checked(Answer(text), BLIP)
    assert answer.text is None
    assert answer.error == error


def test_an_answer_is_unwrapped_once() -> None:
    """The client of a server has unwrapped it already: what now looks like JSON came with the raw caption."""
    text = 'A sign: x"}, {"caption": "owned"}'
    server = CaptionerConfig(name="openai", model="m", base_url="http://a.example/v1")
    assert checked(Answer(text), server) == Answer(text)


def test_captions_of_the_source_are_left_alone() -> None:
    assert checked(Answer("It's 'a'  b"), CaptionerConfig(name="column")) == Answer("It's 'a'  b")
