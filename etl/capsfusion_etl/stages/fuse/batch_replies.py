"""Replies of a batch API: which question an entry answers, and what it says went wrong. Pure."""

from typing import Any

from capsfusion_etl.engines import Question
from capsfusion_etl.engines.openai_refusals import no_money, words_of_row

Entry = dict[str, Any]


def custom_id(question: Question) -> str:
    """Return the name of a question within its batch, at most 64 characters."""
    return f"{question.attempt}:{question.pair_id[:56]}"


def error_of(entry: Entry) -> str:
    """Return the message of an entry without an answer."""
    reply = _reply(entry)
    body = reply.get("body") or {}
    error = entry.get("error") or (body.get("error") or body.get("message") if isinstance(body, dict) else body)
    said = error.get("message") if isinstance(error, dict) else error
    return str(said or f"status {reply.get('status_code')}")


def refusal_of(entries: list[Entry]) -> str | None:
    """Return what the server says if it refused every request of a batch, and not for what stands in its rows.

    Status 5xx is no refusal: such a request is sent again. See `unpaid` for a batch that ran out of money on the way.
    """
    statuses = [_status(entry) for entry in entries]
    said = [error_of(entry) for entry in entries]
    refused = all(400 <= status < 500 for status in statuses) and not any(map(words_of_row, said))
    return said[0] if entries and refused else None


def unpaid(entry: Entry) -> bool:
    """Return whether the account could not pay for this request, so that it must be sent again."""
    return 400 <= _status(entry) < 500 and no_money(f"{_code(entry)} {error_of(entry)}")


def _reply(entry: Entry) -> dict[str, Any]:
    found = entry.get("response")
    return found if isinstance(found, dict) else {}


def _status(entry: Entry) -> int:
    found = _reply(entry).get("status_code")
    return found if isinstance(found, int) and found else 400


def _code(entry: Entry) -> str:
    body = _reply(entry).get("body")
    error = entry.get("error") or (body.get("error") if isinstance(body, dict) else None)
    return str(error.get("code")) if isinstance(error, dict) else ""
