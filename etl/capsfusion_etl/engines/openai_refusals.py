"""What a server refuses with status 4xx: a parameter that it does not take, one row, or every request.

A parameter is left out and the request sent again; a row costs itself; and a server that refuses every request stops
the stage with its own words, because no row is to blame.
"""

import re
from typing import Any

import openai

from capsfusion_etl.console import say
from capsfusion_etl.errors import InputError

# Parameters that servers refuse, and what is sent instead; None: nothing.
_INSTEAD: dict[str, str | None] = {
    "response_format": None, "temperature": None, "seed": None, "max_completion_tokens": "max_tokens",
}  # fmt: skip
_ALSO_CALLED = {"json_schema": "response_format"}
# Refusals that are about the text or the image of one request.
_SIZE = r"context.?length|maximum context|too (?:long|large|many tokens)"
_OF_A_ROW = re.compile(
    rf"{_SIZE}|content.?(?:filter|policy|management)|safety|"
    r"moderation|flagged|invalid.?prompt|(?:invalid|unsupported|corrupt\w*).?image|image.{0,20}(?:pars|decod|size)",
    re.IGNORECASE,
)
MANY = 3  # refusals without a single answer, from which on the server refuses everything
MANY_IN_A_ROW = 20  # the same after answers
MANY_TOO_LARGE = 10  # refusals of the size alone, without a single answer, that are no longer about rows
_PARAMETER = re.compile(r"(?<![\w.])max_(?:completion_|new_)?tokens\b")  # its value is ours, not a row's
_OF_PROMPT = re.compile(r"input tokens|in the messages|prompt contains", re.IGNORECASE)
_WAIT = re.compile(r"(?:try again|retry) in\b|rate limit|per (?:minute|second)", re.IGNORECASE)
_NO_MONEY = re.compile(r"insufficient.?quota|exceeded your (?:current )?quota|billing|credit balance|payment", re.I)


class Refusals:
    """Remembers what a server has refused.

    Args:
        where: name of the server in messages.
    """

    def __init__(self, where: str) -> None:
        self._where, self._left_out = where, set[str]()
        self._in_a_row, self._answered = 0, False

    def without(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a request without the parameters that the server does not take."""
        sent = {name: value for name, value in body.items() if name not in self._left_out}
        for name in self._left_out & body.keys():
            other = _INSTEAD[name]
            if other is not None:
                sent[other] = body[name]
        return sent

    def leaves_out(self, error: openai.APIStatusError, sent: dict[str, Any]) -> bool:
        """Return whether the refused request can be sent again without the parameter that the error names."""
        named = _parameter(error)
        if named is None or named not in sent:
            return False
        if named not in self._left_out:
            self._left_out.add(named)
            instead = f"sending {_INSTEAD[named]} instead" if _INSTEAD[named] else "leaving it out"
            say(f"          {self._where} does not take {named}: {instead} ({words_of(error)})")
        return True

    def answered(self) -> None:
        """Note that the server has answered a request."""
        self._in_a_row, self._answered = 0, True

    def refused(self, error: openai.APIStatusError) -> str:
        """Return why this row gets no answer.

        Raises:
            InputError: the server refuses every request, not this row.
        """
        said = f"{error.code} {words_of(error)}"
        of_row, too_large = is_of_row(error), re.search(_SIZE, said, re.IGNORECASE) is not None
        if not of_row or (too_large and not self._answered):
            self._in_a_row += 1
            if self._in_a_row >= (MANY_IN_A_ROW if self._answered else MANY_TOO_LARGE if of_row else MANY):
                raise self.of_everything(words_of(error))
        return f"{type(error).__name__}: {words_of(error)}"

    def of_everything(self, said: str) -> InputError:
        """Return the error that the server refuses every request, with its words."""
        return InputError(
            f"{self._where} refuses every request: {said}. No row is settled for that: change the settings and run the "
            "same command again"
        )


def _parameter(error: openai.APIStatusError) -> str | None:
    """Return the parameter that an error is about, if a request can do without it."""
    text = f"{error.param or ''} {words_of(error)}"
    for name in (*_INSTEAD, *_ALSO_CALLED):
        if re.search(rf"(?<![\w.]){name}\b", text):
            return _ALSO_CALLED.get(name, name)
    return None


def is_of_row(error: openai.APIStatusError) -> bool:
    """Return whether an error is about the text or the image of one request, and not about every request."""
    said = f"{error.code} {words_of(error)}"
    return error.status_code == 413 or words_of_row(said)


def words_of_row(said: str) -> bool:
    """Return whether the words of a server are about one request, and not about a parameter of all."""
    ours = _PARAMETER.search(said) is not None and _OF_PROMPT.search(said) is None
    return _OF_A_ROW.search(said) is not None and not ours


def cannot_pay(error: openai.APIStatusError) -> bool:
    """Return whether the account has no quota left, or its billing does not work."""
    if error.status_code == 402 or error.code == "insufficient_quota" or "billing" in str(error.code):
        return True
    told_when = "retry-after" in error.response.headers
    return error.status_code in (403, 429) and not told_when and no_money(words_of(error))


def no_money(said: str) -> bool:
    """Return whether the words of a server are about quota or billing, and not about its rate, which passes."""
    return _NO_MONEY.search(said) is not None and _WAIT.search(said) is None


def _detail(found: Any) -> str | None:
    """Return what FastAPI says: a text, or faults as {"loc": ["body", "seed"], "msg": "..."}."""
    if not isinstance(found, list):
        return found if isinstance(found, str) else None
    faults = [fault for fault in found if isinstance(fault, dict)]
    return "; ".join(f"{' '.join(map(str, fault.get('loc') or ()))}: {fault.get('msg')}" for fault in faults) or None


def words_of(error: openai.APIError) -> str:
    """Return the message of the server in one line of at most 200 characters, without the status in front of it."""
    body = error.body if isinstance(error.body, dict) else {}
    said = body.get("message") or _detail(body.get("detail"))
    return " ".join(str(said or error.message).split())[:200].rstrip(".")
