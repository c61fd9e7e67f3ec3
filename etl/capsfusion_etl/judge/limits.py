"""Thresholds of the judge's checks. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds of the checks.

    Attributes:
        max_chars: greatest length of a fused caption, in characters.
        max_invented_numbers: greatest count of numbers that neither source contains.
        max_invented_names: greatest count of names that neither source contains.
        max_unsupported: greatest count of content words that neither source supports; praise is counted apart.
        max_embellished: greatest count of words that only praise or fill, and that neither source has.
        min_recall: smallest share of the raw caption's facts that the fused caption keeps, 0 to 1.
    """

    max_chars: int = 1_000
    max_invented_numbers: int = 0
    max_invented_names: int = 0
    max_unsupported: int = 2
    max_embellished: int = 1
    min_recall: float = 0.2
