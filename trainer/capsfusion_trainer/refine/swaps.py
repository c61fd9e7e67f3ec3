"""Augmentation: the same triplets with other names and numbers, so that a model learns to copy, not to recall them."""

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from capsfusion_etl.ids import short_hash
from capsfusion_etl.judge.grounding import facts_of
from capsfusion_etl.judge.lexicon import in_dictionary

from capsfusion_trainer.refine.triplets import Triplet, teachable

_NUMBER = re.compile(r"\d+")
_YEAR = re.compile(r"(?:19|20)\d\d")
_MIN_NUMBER = 13  # smaller ones may be spelt out in the other caption


def with_swaps(triplets: Sequence[Triplet], seed: int = 0) -> list[Triplet]:
    """Return the triplets, and after them those with a name or number again, with other names and numbers.

    A name is a capitalised word that the dictionary does not have. In all three captions it is replaced by a name of
    another triplet, and a number by another one of as many digits. What is not worth learning is left out.
    """
    rng = random.Random(seed)
    pool = sorted({name for t in triplets for name in _names(t)})
    swapped = [other for triplet in triplets if (other := _swapped(triplet, pool, rng)) is not None]
    return [*triplets, *teachable(swapped)[0]]


def _names(triplet: Triplet) -> list[str]:
    facts = dict.fromkeys(facts_of(triplet.raw_caption))
    return [f for f in facts if f.isalpha() and len(f) > 3 and f[1:].islower() and not in_dictionary(f.lower())]


def _swapped(triplet: Triplet, pool: list[str], rng: random.Random) -> Triplet | None:
    texts = (triplet.raw_caption, triplet.synthetic_caption, triplet.fused_caption)
    names = {name: rng.choice(pool) for name in _names(triplet)}
    names |= {name.lower(): other.lower() for name, other in names.items()}
    digits = (n for n in dict.fromkeys(_NUMBER.findall(triplet.raw_caption)) if int(n) >= _MIN_NUMBER)
    numbers = {number: _other_number(number, rng) for number in digits}
    if not names and not numbers:
        return None
    pattern = re.compile(rf"(?<![^\W\d_])(?:{'|'.join(map(re.escape, names)) or '(?!)'})(?![^\W\d_])")
    named = (pattern.sub(lambda m: names[m.group()], text) for text in texts)
    raw, synthetic, fused = (_NUMBER.sub(lambda m: numbers.get(m.group(), m.group()), text) for text in named)
    return replace(
        triplet, pair_id=short_hash(f"swapped {triplet.pair_id}"), raw_caption=raw, synthetic_caption=synthetic,
        fused_caption=fused,
    )  # fmt: skip


def _other_number(number: str, rng: random.Random) -> str:
    if _YEAR.fullmatch(number):
        return str(rng.randint(1950, 2022))
    return str(rng.randint(1, 9)) + "".join(str(rng.randint(0, 9)) for _ in number[1:])
