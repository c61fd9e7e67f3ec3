"""Test decoding that may only use words of the sources: whatever a model prefers, it cannot invent a name or number."""

import re
from pathlib import Path

import pytest
import torch
from capsfusion_etl.engines import FuserConfig, Question
from capsfusion_etl.engines.base import Answer
from capsfusion_etl.engines.generation.constrain import OnlyWords
from capsfusion_etl.engines.generation.guidance import Guide
from capsfusion_etl.engines.generation.guide import best_of, with_titles
from capsfusion_etl.engines.generation.vocabulary import sayable
from capsfusion_etl.engines.transformers import TransformersFuser
from capsfusion_etl.judge.lexicon import free_words
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("source", "may", "may_not"),
    [
        ("Lot 24: coins", {"Lot 24", "lot 24", "coin", "Coins"}, {"24", "24 coins"}),
        ("Lamp $395", {"$395"}, {"395"}),
        ("Bolt 20 mm, steel", {"20 mm", "Bolt 20"}, {"20", "20 steel"}),
        ("SpaceX 2015 launch", {"2015", "SpaceX", "launched", "launching"}, {"Spacex's"}),
        ("A man standing", {"stands", "stood", "men", "the", "titled", "Shows"}, {"he", "his", "beautiful"}),
        ("old_red-barn_1998.jpg", {"red", "barn"}, {"green"}),
        ("see www.example.com", {"see"}, {"www.example.com"}),
        ("<b>Wall</b> in Ghent &amp; mortar", {"wall", "Wall", "&"}, {"b", "<b>Wall</b>", "&amp"}),
        ("红色的灯笼", {"红色的灯笼"}, {"灯笼"}),
        ("7", {"7"}, {"8"}),
    ],
)
def test_what_may_be_said(source: str, may: set[str], may_not: set[str]) -> None:
    units = sayable(source, free=free_words())
    assert (may - units, may_not & units) == (set(), set())


# A vocabulary of single characters; 0 ends an answer.
TOKENS = [*" abcdefgh.,:", "'s"]


def encode(text: str) -> list[int]:
    return [TOKENS.index(text) + 1] if text in TOKENS else [TOKENS.index(c) + 1 for c in text]


@settings(deadline=None)  # twenty-four steps of torch take long on a busy machine
@given(st.integers(0, 2**16), st.sampled_from([1, 3]))
def test_any_logits_make_only_the_words_of_each_row(seed: int, beams: int) -> None:
    words = [["ab", "abc", "b"], ["de", "d ef"]]
    torch.manual_seed(seed)
    only = OnlyWords([[tuple(encode(f" {w}")) for w in row] for row in words], encode, 1, [0])
    said = torch.full((2 * beams, 1), 7)
    for step in range(24):
        scores = only(said, torch.randn(2 * beams, len(TOKENS) + 1))
        assert torch.isfinite(scores).any(dim=1).all()
        said = torch.cat([said, torch.softmax(scores, dim=1).multinomial(1)], dim=1)
        if step % 5 == 4 and beams > 1:  # beams of a row change places, or one takes another's
            order = torch.randint(beams, (2, beams)) + torch.tensor([[0], [beams]])
            said = said[order.flatten()]
    for i, row in enumerate(said[:, 1:].tolist()):
        text = "".join(TOKENS[t - 1] for t in (row[: row.index(0)] if 0 in row else row))
        unit = "|".join(sorted(words[i // beams], key=len, reverse=True))
        starts = "|".join(w[:n] for w in words[i // beams] for n in range(len(w) + 1))
        assert re.fullmatch(rf"(?: (?:{unit})(?:'s)?[.,:]?)*(?: (?:{starts}))?", text), text
        assert 0 not in row or text.endswith(".")


@settings(deadline=None)  # thirty steps of torch take long on a busy machine
@given(st.integers(0, 2**16))
def test_after_the_last_word_an_answer_ends(seed: int) -> None:
    torch.manual_seed(seed)
    words = [tuple(encode(f" {w}")) for w in ("ab", "b", "cd")]
    only = OnlyWords([words, words], encode, 1, [0], [words[2], None])
    said = torch.full((2, 1), 7)
    for _ in range(30):
        said = torch.cat([said, torch.softmax(only(said, torch.randn(2, len(TOKENS) + 1)), 1).multinomial(1)], dim=1)
    row = said[0, 1:].tolist()
    text = "".join(TOKENS[t - 1] for t in (row[: row.index(0)] if 0 in row else row))
    assert " cd" not in text or (text.count(" cd") == 1 and " cd.".startswith(text[text.index(" cd") :])), text


def test_a_title_is_attached_and_not_decoded() -> None:
    guides = [Guide(title="Lot 24: coins"), Guide()]
    answers = with_titles([Answer("A old coin is seen in a picture titled."), Answer("A picture titled.")], guides)
    assert [a.text for a in answers] == [
        "An old coin is seen in a picture titled Lot 24: coins.",
        "A picture titled.",
    ]


def test_a_phrase_does_not_hide_a_word_that_begins_like_it() -> None:
    """Some tokenizers write each number as a space and its digits."""
    words = ["in", "in 3", "20"]  # of characters: after "in", a space may begin "3" or "20"
    alphabet = " in203."
    only = OnlyWords(
        [[tuple(alphabet.index(c) for c in f" {w}") for w in words]],
        lambda text: [alphabet.index(c) if c in alphabet else 9 for c in text], 0, [8],
    )  # fmt: skip
    said: list[int] = []
    for character in " in ":
        assert torch.isfinite(only(torch.tensor([said], dtype=torch.long), torch.zeros(1, 10)))[
            0, alphabet.index(character)
        ]
        said.append(alphabet.index(character))
    allowed = torch.isfinite(only(torch.tensor([said]), torch.zeros(1, 10)))[0]
    assert {alphabet[i] for i in allowed.nonzero().flatten().tolist()} == {"3", "2", "i"}


@pytest.mark.parametrize("beams", [1, 3])
def test_a_random_model_invents_nothing(tiny_llama: Path, beams: int) -> None:
    config = FuserConfig(
        name="transformers", model=str(tiny_llama), only_sources=True, num_beams=beams, max_new_tokens=40
    )
    asked = [
        Question(f"{i:064x}", raw, "A bridge.") for i, raw in enumerate(["Oslo 1998", "Lot 24 in Kew", "Anna Keller"])
    ]
    for question, answer in zip(asked, TransformersFuser(config).fuse(asked), strict=True):
        units = sayable(question.raw_caption, question.synthetic_caption, free=free_words())
        text = str(answer.text).replace(" ", "").replace("Ġ", " ")  # this tokenizer knows single characters
        said = re.sub(r"'s|[.,:]", "", text).split()
        for word in said[:-1]:  # the last one may be cut off
            assert any(word in unit.split() for unit in units), (word, answer.text)


def test_the_best_beam_is_the_preferred_one() -> None:
    answers = [Answer("a"), Answer("b"), Answer("c"), Answer("d")]
    guides = [Guide(prefer=lambda text: float(text == "b")), Guide(prefer=lambda _: 0.0)]
    assert best_of(answers, [-0.5, -0.9, -0.4, -0.3], guides) == [answers[1], answers[3]]
