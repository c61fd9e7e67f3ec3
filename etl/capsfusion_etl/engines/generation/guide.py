"""Guides as logits processors, titles attached to what was decoded, and the choice among beams."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transformers import LogitsProcessor

from capsfusion_etl.engines.base import Answer
from capsfusion_etl.engines.generation.constrain import OnlyWords
from capsfusion_etl.engines.generation.coverage import KeepFacts
from capsfusion_etl.engines.generation.guidance import TITLED, Guide, with_articles

SECOND_BEAMS = 6  # beams of the second attempt at an answer that may only use given words
_MOST_KNOWN = 100_000  # texts whose tokens are remembered


class Processors:
    """Makes the logits processors of a batch.

    Args:
        tokenizer: of the model.
        ends: tokens that end an answer.
    """

    def __init__(self, tokenizer: Any, ends: Sequence[int]) -> None:
        self._tokenizer, self._ends = tokenizer, ends
        self._known: dict[str, tuple[int, ...]] = {}

    def of(self, guides: Sequence[Guide], start: int, beams: int, bonus: float) -> list[LogitsProcessor]:
        """Return the processors for answers that begin at position `start`.

        Args:
            guides: one for each row; all have `words`, or none has.
            start: length of the prompts.
            beams: sequences of each row.
            bonus: logits added to the tokens of missing facts, without beams; 0 turns this off.
        """
        made: list[LogitsProcessor] = []
        if bonus and beams == 1:
            facts = [[self._tokens(f" {fact}") for fact in guide.facts] for guide in guides]
            made.append(KeepFacts(facts, start, bonus, [*self._ends, self._tokens(".")[-1]]))
        if guides[0].words is not None:
            titled = self._tokens(f" {TITLED}")
            last = [titled if guide.title else None for guide in guides]
            words = [
                [*(self._tokens(f" {word}") for word in guide.words or ()), *([titled] if guide.title else [])]
                for guide in guides
            ]
            made.append(OnlyWords(words, self._tokens, start, self._ends, last))
        return made

    def _tokens(self, text: str) -> tuple[int, ...]:
        if text not in self._known:
            if len(self._known) > _MOST_KNOWN:
                self._known.clear()
            # In context, because some tokenizers put a space in front of the first word of a text.
            head, whole = (self._tokenizer.encode(t, add_special_tokens=False) for t in ("a", f"a{text}"))
            split = whole[: len(head)] == head
            self._known[text] = tuple(
                whole[len(head) :] if split else self._tokenizer.encode(text, add_special_tokens=False)
            )
        return self._known[text]


def with_titles(answers: Sequence[Answer], guides: Sequence[Guide]) -> list[Answer]:
    """Return the answers, as many for each guide, with the titles that follow their last word."""
    each = len(answers) // len(guides)
    return [_with_title(answer, guides[i // each].title) for i, answer in enumerate(answers)]


def _with_title(answer: Answer, title: str) -> Answer:
    text = answer.text or ""
    attached = title and text.endswith(f" {TITLED}.")
    answer = with_articles(answer)
    return replace(answer, text=f"{(answer.text or '')[:-1]} {title}.") if attached else answer


def best_of(answers: Sequence[Answer], likelihoods: Sequence[float], guides: Sequence[Guide]) -> list[Answer]:
    """Return the best of each row's answers: mean log-likelihood plus what its guide prefers.

    Args:
        answers: of all rows, as many for each.
        likelihoods: mean log-likelihood per token of each answer, in nats.
        guides: one for each row.
    """
    each = len(answers) // len(guides)
    best = []
    for i, guide in enumerate(guides):
        row = range(i * each, (i + 1) * each)
        scores = {j: likelihoods[j] + (guide.prefer(answers[j].text or "") if guide.prefer else 0.0) for j in row}
        best.append(answers[max(scores, key=lambda j: scores[j])])
    return best
