"""Protocols of captioners and fusers; their requests (`Question`, `Picture`) and their responses (`Answer`)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

ENGINE_ERROR = "engine_error"  # verdict of a row for which an engine gives no answer
Key = tuple[str, str, int]  # pair_id, strategy or "caption", attempt


@dataclass(frozen=True, slots=True)
class Answer:
    """Response of an engine for one row.

    Attributes:
        text: the caption; None if the engine failed on this row, or had nothing to say.
        error: why the engine failed on this row alone.
        doubt: why the engine itself does not trust its answer; such an answer is not accepted.
        prompt_tokens: tokens read.
        completion_tokens: tokens written.
        cost_usd: cost in US dollars.
    """

    text: str | None
    error: str | None = None
    doubt: str | None = field(default=None, kw_only=True)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Question:
    """Request to a fuser for one row.

    Attributes:
        pair_id: sha256 in hex that identifies the pair.
        raw_caption: the alt-text.
        synthetic_caption: the caption of a captioner.
        image: encoded bytes of the image, for a fuser with `sees_image`.
        strategy: chooses the prompt: fused or language-rewrite.
        attempt: 0 decodes greedily or with beams, later attempts differently.
        fused_caption: the caption that a second opinion is about; empty for fusion.
    """

    pair_id: str
    raw_caption: str
    synthetic_caption: str
    image: bytes | None = None
    strategy: str = "fused"
    attempt: int = 0
    fused_caption: str = ""

    @property
    def key(self) -> Key:
        """Key of this request in the journal of paid requests."""
        return self.pair_id, self.strategy, self.attempt

    @property
    def shown_synthetic(self) -> str:
        """The synthetic caption as the model sees it: empty if it only rewrites the alt-text."""
        return self.synthetic_caption if self.strategy == "fused" else ""


@dataclass(frozen=True, slots=True)
class Picture:
    """Request to a captioner for one row.

    Attributes:
        pair_id: sha256 in hex that identifies the pair.
        image: encoded bytes of the image; None if it is missing or the captioner needs no images.
        given: synthetic caption that the source provides; None if it has none.
    """

    pair_id: str
    image: bytes | None
    given: str | None = None

    @property
    def key(self) -> Key:
        """Key of this request in the journal of paid requests."""
        return self.pair_id, "caption", 0


class Captioner(Protocol):
    """Engine that describes images in batches.

    Attributes:
        model: name of the model, recorded with each caption.
        revision: its revision.
    """

    model: str
    revision: str

    def caption(self, pictures: Sequence[Picture]) -> list[Answer]:
        """Return one answer for each image, in order."""


class Fuser(Protocol):
    """Engine that merges a raw and a synthetic caption, in batches.

    Attributes:
        model: name of the model, recorded with each caption.
        revision: its revision.
    """

    model: str
    revision: str

    def fuse(self, questions: Sequence[Question]) -> list[Answer]:
        """Return one answer for each question, in order."""


@runtime_checkable
class AsyncEngine(Protocol):
    """Fuser or captioner that takes one request at a time, usually over the network, with many of them in flight.

    Attributes:
        model: name of the model, recorded with each caption.
        revision: its revision.
        concurrency: most requests in flight.
    """

    model: str
    revision: str
    concurrency: int

    async def ask(self, question: Any) -> Answer | None:
        """Return the answer to a Question or Picture; None if the budget does not cover the request.

        A failure of this row alone is an Answer with `error`.

        Raises:
            InputError: no request can succeed, because the server refuses the key or does not know the model.
            RetryError: the server is unreachable.
        """

    def most(self, question: Any) -> tuple[int, float]:
        """Return the most tokens and US dollars that one request can cost; the budget reserves them."""

    def finish(self) -> None:
        """Note that all requests of a task were made.

        Raises:
            RetryError: not one of several was answered, so that the server is at fault, not the rows.
        """

    async def close(self) -> None:
        """Close the connections of the running event loop; `ask` opens new ones."""
