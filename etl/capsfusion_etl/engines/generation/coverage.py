"""Decoding that keeps the facts: names and numbers of the raw caption weigh more until the answer has said them.

A small model ends its sentence too early. While a fact is unsaid, its next token gets a bonus, and the end of the
sentence a malus; once all are said, decoding is as ever. (Coverage, as See et al. 2017 have it for summaries, without
training.)
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

END_SHARE = 2 / 3  # of the bonus: the malus on the full stop and the end token


class KeepFacts(LogitsProcessor):
    """For one batch.

    Args:
        facts: of each row, the token sequences that should be said.
        start: position at which the answers begin.
        bonus: added to the logits of a token that begins or continues an unsaid fact.
        ends: tokens that end an answer or a sentence.
    """

    def __init__(
        self, facts: Sequence[Sequence[tuple[int, ...]]], start: int, bonus: float, ends: Sequence[int]
    ) -> None:
        self._unsaid = [list(dict.fromkeys(row)) for row in facts]
        self._start, self._bonus, self._ends = start, bonus, list(ends)

    def __call__(self, input_ids: Any, scores: Any) -> torch.Tensor:
        """Logits (batch, vocabulary) with bonus and malus, in place."""
        for row, unsaid in enumerate(self._unsaid):
            if not unsaid:
                continue
            said = tuple(input_ids[row, self._start :].tolist())
            unsaid[:] = [fact for fact in unsaid if said[-len(fact) :] != fact]
            if unsaid:
                scores[row, list({_next(fact, said) for fact in unsaid})] += self._bonus
                scores[row, self._ends] -= END_SHARE * self._bonus
        return torch.as_tensor(scores)


def _next(fact: tuple[int, ...], said: tuple[int, ...]) -> int:
    """The token of `fact` that comes next: the one behind what was just said of it, else its first."""
    begun = next((k for k in range(min(len(fact) - 1, len(said)), 0, -1) if said[-k:] == fact[:k]), 0)
    return fact[begun]
