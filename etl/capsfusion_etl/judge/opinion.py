"""Second opinions: verdicts of a large model on accepted captions, in the classes of decision 17. Pure."""

import json
import re
from typing import Any

FAITHFUL = ("good", "lost", "embellished")  # such a caption says nothing false
VERDICTS = (*FAITHFUL, "false", "broken")
_OBJECT = re.compile(r"\{[^{}]*\}")


def read_opinion(text: str) -> tuple[str, str] | None:
    """Return the verdict in an answer, one of VERDICTS, and the words at fault; None if the answer has no verdict.

    The last JSON object with a verdict counts, as some models think aloud before it.
    """
    for found in reversed(_OBJECT.findall(text)):
        opinion = _parsed(found)
        verdict = opinion.get("verdict") if isinstance(opinion, dict) else None
        if isinstance(verdict, str) and verdict.strip().lower() in VERDICTS:
            wrong = opinion.get("wrong")
            return verdict.strip().lower(), wrong.strip() if isinstance(wrong, str) else ""
    return None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
