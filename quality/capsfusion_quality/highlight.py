"""Names and numbers of a caption, marked: what was kept, what was lost, what was invented."""

import re
from collections.abc import Iterable, Mapping

from markupsafe import Markup, escape


def highlight(text: str | None, marks: Mapping[str, Iterable[str]]) -> Markup:
    """The text as HTML, everything in it escaped; `marks` maps a CSS class to the words that get it.

    A screen reader says the class's name, so that colour is not all there is.
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
