"""Logits processor that favours the names and numbers of the raw caption until the answer contains them.

A small model ends its sentence too early. While a fact is missing, its next token gets a bonus and the tokens that end
the sentence get a penalty. Once the answer contains all facts, decoding is unchanged. This is the coverage idea of
See et al. 2017 (for summaries), without training.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

END_SHARE = 2 / 3  # penalty on the full stop and the end tokens, as a share of the bonus


class KeepFacts(LogitsProcessor):
    """Adds bonus and penalty to the logits of one batch; it keeps state, so each batch needs a new one.

    Args:
        facts: for each row, the token sequences that the answer should contain.
        start: position at which the answers begin.
        bonus: added to the logit of each token that begins or continues a missing fact.
        ends: tokens that end an answer or a sentence.
    """

    def __init__(
        self, facts: Sequence[Sequence[tuple[int, ...]]], start: int, bonus: float, ends: Sequence[int]
    ) -> None:
        self._unsaid = [list(dict.fromkeys(row)) for row in facts]
        self._start, self._bonus, self._ends = start, bonus, list(ends)

    def __call__(self, input_ids: Any, scores: Any) -> torch.Tensor:
        """Change `scores`, the logits of shape (batch, vocabulary), in place and return them."""
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
    """Return the token that continues `fact` if the answer ends with a beginning of it, else its first token."""
    begun = next((k for k in range(min(len(fact) - 1, len(said)), 0, -1) if said[-k:] == fact[:k]), 0)
    return fact[begun]
