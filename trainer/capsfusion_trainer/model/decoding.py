"""How captions are generated: as long as those of the training, or by the rules of a benchmark."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from capsfusion_trainer.model.caption_model import CaptionModel

BEAMS = 5
_BENCHMARK_TOKENS = 20  # of a tokenizer of subwords
_MIN_TOKENS = 8
_SUBWORDS = 1000  # a smaller vocabulary is one of bytes or characters


@dataclass(frozen=True, slots=True)
class Decoding:
    """Beam search (greedy if `beams` is 1) of at most `max_new_tokens`.

    Beams are ranked by the sum of their log-likelihoods, divided by their length to the power of `length_penalty`.
    """

    beams: int
    max_new_tokens: int
    min_new_tokens: int = 0
    length_penalty: float = 1.0

    @classmethod
    def free(cls, model: "CaptionModel", beams: int = 1, max_new_tokens: int | None = None) -> Self:
        """Return the decoding for reading: captions may be as long as those of the training."""
        return cls(beams, max_new_tokens or model.config.max_tokens)

    @classmethod
    def benchmark(cls, model: "CaptionModel", beams: int = BEAMS, max_new_tokens: int | None = None) -> Self:
        """Return the decoding of Emu's evaluation on COCO: 8 to 20 tokens, length penalty -1.

        These lengths are in subwords. For a tokenizer of bytes they mean nothing: there, captions may be as long as
        those of the training.

        Source: baaivision/Emu, mm_eval/datasets/coco.py.
        """
        if not has_subwords(model):
            return cls.free(model, beams, max_new_tokens)
        longest = max_new_tokens or _BENCHMARK_TOKENS
        return cls(beams, longest, min(_MIN_TOKENS, longest), -1.0)

    def options(self) -> dict[str, Any]:
        """Return the arguments of `generate` in transformers."""
        found = {"max_new_tokens": self.max_new_tokens, "num_beams": self.beams}
        if self.min_new_tokens:
            found["min_new_tokens"] = self.min_new_tokens
        return found | ({"length_penalty": self.length_penalty} if self.beams > 1 else {})


def has_subwords(model: "CaptionModel") -> bool:
    """Return whether the tokens are subwords, so that numbers of tokens of a benchmark mean what they say."""
    return len(model.tokenizer) >= _SUBWORDS


def benchmark_caption(text: str) -> str:
    """Return the first sentence of a generated caption in lower case, as Emu's evaluation scores it."""
    return text.strip().split("\n")[0].split(". ")[0].removesuffix(".").lower()
