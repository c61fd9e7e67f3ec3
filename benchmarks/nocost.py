"""Engines that cost nothing, and rows for them: a benchmark with them measures the jobs alone."""

import io
import random
from collections.abc import Sequence

from capsfusion_etl.engines import Answer, CaptionerConfig, FuserConfig, Picture, Question

_WHAT = ("Bridge", "Harbour", "Castle", "Lighthouse", "Market", "Museum", "Orchard", "Station")
_WHERE = ("Lisbon", "Ghent", "Oslo", "Zurich", "Porto", "Turin", "Bergen", "Leiden", "Graz", "Skagen")
_SEEN = ("a bridge over a body of water.", "a group of people standing in front of a building.", "a dog on a beach.")


class Caption:
    """Captioner that returns the same caption for every image without decoding it."""

    model, revision = "none", "1"

    def __init__(self, config: CaptionerConfig) -> None:
        """Load nothing."""

    def caption(self, images: Sequence[Picture]) -> list[Answer]:
        """Return one sentence for each image."""
        return [Answer("A picture of something.") for _ in images]


class Fuse:
    """Fuser that returns the raw caption as a sentence, which the judge accepts at the first attempt."""

    model, revision = "none", "1"

    def __init__(self, config: FuserConfig) -> None:
        """Load nothing."""

    def fuse(self, questions: Sequence[Question]) -> list[Answer]:
        """Return one sentence for each question."""
        return [Answer(f"The {q.raw_caption} in a picture.") for q in questions]


def rows(count: int, seed: int = 0) -> list[tuple[str, str, str]]:
    """Return `count` rows (url, raw caption, synthetic caption) with captions as long as on the web: 14 and 9 words."""
    dice = random.Random(seed)
    return [
        (
            f"http://a.example/{i}.jpg",
            f"{dice.choice(_WHAT)} of {dice.choice(_WHERE)} no. {i}, {dice.randint(1900, 2025)}, photograph by "
            f"{dice.choice(_WHERE)} {dice.choice(_WHAT)} for the {dice.choice(_WHERE)} tourist office",
            dice.choice(_SEEN),
        )
        for i in range(count)
    ]


def jpeg(kilobytes: int, seed: int) -> bytes:
    """Return a JPEG of noise, padded to `kilobytes` with bytes after its end marker, as cameras do."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.frombytes("RGB", (64, 64), random.Random(seed).randbytes(64 * 64 * 3)).save(buffer, "JPEG")
    return buffer.getvalue().ljust(kilobytes * 1024, b"\0")
