"""Ask a model once what repeats: pages share alt-texts, and captioners say the same of many images."""

from collections.abc import Callable, Sequence

from capsfusion_etl.engines.base import Answer, Question

_MOST_KNOWN = 100_000  # answers that are remembered, some 50 MB
_Key = tuple[str, ...]


class Repeats:
    """Remembers answers, and gives them to equal questions.

    Args:
        varies: whether the answers of an attempt (0, 1...) differ for equal questions; those are not remembered.
    """

    def __init__(self, varies: Callable[[int], bool]) -> None:
        self._varies = varies
        self._known: dict[_Key, Answer] = {}

    def answered(
        self, questions: Sequence[Question], ask: Callable[[Sequence[Question]], list[Answer]]
    ) -> list[Answer]:
        """Return one answer for each question, in order; a repeated answer has the tokens of the first one.

        Args:
            questions: what is asked.
            ask: returns the answers to those that were not asked before.
        """
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        keys = [self._key(question) for question in questions]
        new = {key: q for key, q in zip(keys, questions, strict=True) if key not in self._known}
        found = dict(zip(new, ask([*new.values()]), strict=True)) if new else {}
        answers = [found.get(key) or self._known[key] for key in keys]
        self._known |= {key: answer for key, answer in found.items() if not self._varies(new[key].attempt)}
        return answers

    def _key(self, question: Question) -> _Key:
        """Return what an answer depends on."""
        own = question.pair_id if self._varies(question.attempt) else ""
        seen = question.raw_caption, question.shown_synthetic, question.fused_caption
        return question.strategy, *seen, str(question.attempt), own
