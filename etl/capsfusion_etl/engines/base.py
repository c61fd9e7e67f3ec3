"""What an engine is: questions, answers, and the protocols of captioners and fusers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

Key = tuple[str, str, int]  # pair_id, strategy or "caption", attempt


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine said about one row: `text`, or `error` where it failed on this row alone."""

    text: str | None
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Question:
    """One row for a fuser. `attempt` 0 is greedy; later ones sample, with a seed that follows from the pair.

    `strategy` chooses the prompt; `image` holds the picture's bytes for a fuser that sees it.
    """

    pair_id: str
    raw_caption: str
    synthetic_caption: str
    image: bytes | None = None
    strategy: str = "fused"
    attempt: int = 0

    @property
    def key(self) -> Key:
        """What a journal of paid requests knows it by."""
        return self.pair_id, self.strategy, self.attempt


@dataclass(frozen=True, slots=True)
class Picture:
    """One row for a captioner: the picture's bytes, and the caption that the source gives; None where there is none."""

    pair_id: str
    image: bytes | None
    given: str | None = None

    @property
    def key(self) -> Key:
        """What a journal of paid requests knows it by."""
        return self.pair_id, "caption", 0


class Captioner(Protocol):
    """Pictures in, plain sentences out. `model` and `revision` name what made them."""

    model: str
    revision: str

    def caption(self, pictures: Sequence[Picture]) -> list[Answer]:
        """One answer for each picture, in order."""


class Fuser(Protocol):
    """Two sentences in, one out."""

    model: str
    revision: str

    def fuse(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer for each question, in order."""


@runtime_checkable
class AsyncEngine(Protocol):
    """A fuser or captioner behind a network: one question at a time, many of them in flight."""

    model: str
    revision: str
    concurrency: int

    async def ask(self, question: Any) -> Answer | None:
        """The answer to a Question or Picture, or an Answer with the error that concerns it alone; None if the engine
        may not be asked, as its budget is used up.

        Raises:
            InputError: no question will ever be answered: the key is refused, there is no such model.
            RetryError: the server is away.
        """

    def most(self, question: Any) -> tuple[int, float]:
        """Tokens and dollars that one answer can take at most: what a budget reserves."""

    async def close(self) -> None:
        """Close what belongs to the running event loop; `ask` opens it again."""
