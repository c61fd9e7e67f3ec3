"""What steers the decoding of an answer: facts to keep, words to choose from, and the choice among beams."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import LogitsProcessor

from capsfusion_etl.engines.base import Answer
from capsfusion_etl.engines.generation.constrain import OnlyWords
from capsfusion_etl.engines.generation.coverage import KeepFacts

SECOND_BEAMS = 6  # beams of the second attempt at an answer that may only use given words
_MOST_KNOWN = 100_000  # texts whose tokens are remembered


@dataclass(frozen=True, slots=True)
class Guide:
    """Guide of one answer.

    Attributes:
        facts: words that the answer should contain (see `coverage`).
        words: the only words and phrases that it may consist of (see `constrain`); None: any text.
        prefer: returns how good a text is as an answer, added to its mean log-likelihood to choose among the beams.
    """

    facts: Sequence[str] = ()
    words: Iterable[str] | None = None
    prefer: Callable[[str], float] | None = None


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
            words = [[self._tokens(f" {word}") for word in guide.words or ()] for guide in guides]
            made.append(OnlyWords(words, self._tokens, start, self._ends))
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
