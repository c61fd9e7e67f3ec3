"""Names and numbers that a caption shares with the references of its picture."""

from collections.abc import Sequence
from dataclasses import dataclass

from capsfusion_etl.judge import Row


@dataclass(frozen=True, slots=True)
class Entities:
    """Numbers of names and numbers: `kept` of the `wanted` ones of the references, and `invented` in the caption."""

    kept: int
    wanted: int
    invented: int


def entities(caption: str, references: Sequence[str]) -> Entities:
    """Compare a caption with references; each is read by itself, as a capital means little where a sentence begins."""
    read = [Row.of(reference, "", caption).grounding for reference in references]
    kept = {fact for grounding in read for fact in grounding.kept}
    wanted = kept | {fact for grounding in read for fact in grounding.lost}
    new = [{*grounding.invented_names, *grounding.invented_numbers} for grounding in read]
    return Entities(len(kept), len(wanted), len(set.intersection(*new)) if new else 0)
