"""Tests of the caption metrics (CIDEr-D, ROUGE-L, BLEU) and the tokenizer."""

import pytest
from capsfusion_trainer.evaluation.metrics import bleu, cider_d, rouge_l, tokens

CANDIDATES = ["A red bridge in Lisbon.", "Two dogs play in deep snow", "A man reads the morning paper"]
REFERENCES = [
    ["A red bridge over the river in Lisbon", "The bridge of Lisbon"],
    ["Dogs in the snow"],
    ["A man who reads his paper in the morning"],
]


def test_figures_are_those_of_pycocoevalcap() -> None:
    """The expected values come from pycocoevalcap 1.2 (Cider, Rouge) over the same tokens."""
    assert cider_d(CANDIDATES, REFERENCES) == pytest.approx(2.1989842654924328, rel=1e-9)
    assert rouge_l(CANDIDATES, REFERENCES) == pytest.approx(0.668135894849966, rel=1e-9)


def test_the_same_words_are_as_near_as_can_be() -> None:
    same = [[text] for text in CANDIDATES]
    assert cider_d(CANDIDATES, same) == pytest.approx(10.0)
    assert rouge_l(CANDIDATES, same) == pytest.approx(1.0)


def test_nothing_has_nothing_in_common() -> None:
    assert cider_d(["", "x"], [["a b"], ["c"]]) == 0.0
    assert rouge_l(["", "x"], [["a b"], [""]]) == 0.0
    assert cider_d([], []) == rouge_l([], []) == 0.0


def test_bleu_is_one_for_the_same_words_and_short_captions_are_punished() -> None:
    same = [[text] for text in CANDIDATES]
    assert bleu(CANDIDATES, same) == pytest.approx([1.0] * 4, abs=1e-6)
    assert bleu(["a red bridge"], [["a red bridge over the river in lisbon"]])[0] == pytest.approx(0.1889, abs=1e-4)


def test_tokens() -> None:
    assert tokens("Anna's 2nd-best: 1,000 m; Zürich!") == ["anna", "'s", "2nd", "best", "1,000", "m", "zürich"]
    assert tokens("He can't -- “don’t”... (T-shirt)") == [
        "he", "ca", "n't", "do", "n't", "-lrb-", "t-shirt", "-rrb-",
    ]  # fmt: skip
