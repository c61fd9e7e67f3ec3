"""Mark the names and numbers of a caption that were kept, lost or invented."""

import re
from collections.abc import Iterable, Mapping

from markupsafe import Markup, escape


def highlight(text: str | None, marks: Mapping[str, Iterable[str]]) -> Markup:
    """Return `text` as escaped HTML with marked words.

    Each mark has the name of its class as title, too, so that its meaning does not depend on colour alone.

    Args:
        text: the caption; None gives a dash.
        marks: CSS class -> the words that get it, in any case.
    """
    if text is None:
        return Markup("–")
    classes = {word.lower(): name for name, words in marks.items() for word in words if word}
    if not classes:
        return escape(text)
    longest_first = "|".join(re.escape(word) for word in sorted(classes, key=len, reverse=True))
    parts, done = [], 0
    for found in re.finditer(rf"(?<!\w)(?:{longest_first})(?!\w)", text, re.IGNORECASE):
        name = classes[found.group().lower()]
        parts += [
            escape(text[done : found.start()]),
            Markup('<mark class="{0}" title="{0}">{1}</mark>').format(name, found.group()),
        ]
        done = found.end()
    return Markup("").join([*parts, escape(text[done:])])
