"""Test the logit bonus for facts that an answer does not contain yet."""

from pathlib import Path

import pytest
import torch
from capsfusion_etl.engines import FuserConfig, Question
from capsfusion_etl.engines.generation.coverage import KeepFacts
from capsfusion_etl.engines.transformers import TransformersFuser
from capsfusion_etl.judge.grounding import facts_of

ENDS = (9,)


def biased(facts: list[tuple[int, ...]], said: list[int]) -> dict[int, float]:
    """Return token -> change of its logit after the tokens `said`; unchanged tokens are left out."""
    keep = KeepFacts([facts], start=1, bonus=3.0, ends=ENDS)
    scores = torch.zeros(1, 10)
    for count in range(len(said) + 1):
        scores = keep(torch.tensor([[0, *said[:count]]]), torch.zeros(1, 10))
    return {i: value for i, value in enumerate(scores[0].tolist()) if value}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], {1: 3.0, 4: 3.0, 9: -2.0}),
        ([1], {2: 3.0, 4: 3.0, 9: -2.0}),  # in the middle of the first fact
        ([1, 2], {4: 3.0, 9: -2.0}),  # the first fact is complete
        ([1, 7], {1: 3.0, 4: 3.0, 9: -2.0}),  # begun, then abandoned
        ([4, 1, 2], {}),
    ],
)
def test_the_next_token_of_an_unsaid_fact_weighs_more(said: list[int], expected: dict[int, float]) -> None:
    assert biased([(1, 2), (4,)], said) == pytest.approx(expected)


def test_facts_as_they_are_written() -> None:
    assert facts_of("Old Harbour Bridge, Lisbon 1,998 (iPhone) by Anna's 2") == [
        "Harbour", "Bridge", "Lisbon", "1,998", "Anna's", "2",
    ]  # fmt: skip


def test_a_model_says_what_it_is_pressed_to_say(tiny_llama: Path) -> None:
    def answers(bonus: float) -> list[str | None]:
        config = FuserConfig(name="transformers", model=str(tiny_llama), max_new_tokens=12, keep_facts=bonus)
        asked = [Question(f"{i:064x}", f"in {place}", "A bridge.") for i, place in enumerate(["Oslo", "Kew", "at sea"])]
        return [a.text for a in TransformersFuser(config).fuse(asked)]

    free, pressed = answers(0.0), answers(100.0)
    assert ["Oslo" in str(pressed[0]).replace(" ", ""), "Kew" in str(pressed[1]).replace(" ", "")] == [True, True]
    assert "Oslo" not in str(free[0]).replace(" ", "")
    assert pressed[2] == free[2]
