"""Replies of a batch API: which question an entry answers, and what it says went wrong. Pure."""

from typing import Any

from capsfusion_etl.engines import Question
from capsfusion_etl.engines.openai_refusals import OF_A_ROW

Entry = dict[str, Any]


def custom_id(question: Question) -> str:
    """Return the name of a question within its batch, at most 64 characters."""
    return f"{question.attempt}:{question.pair_id[:56]}"


def error_of(entry: Entry) -> str:
    """Return the message of an entry without an answer."""
    reply = entry.get("response") or {}
    error = entry.get("error") or (reply.get("body") or {}).get("error") or {}
    return str(error.get("message") or f"status {reply.get('status_code')}")


def refusal_of(entries: list[Entry]) -> str | None:
    """Return what the server says if it refused every request of a batch, and not for what stands in its rows.

    Status 5xx is no refusal: such a request is sent again.
    """
    statuses = [(entry.get("response") or {}).get("status_code") or 400 for entry in entries]
    said = [error_of(entry) for entry in entries]
    refused = all(400 <= status < 500 for status in statuses) and not any(map(OF_A_ROW.search, said))
    return said[0] if entries and refused else None
