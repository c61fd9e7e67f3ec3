"""Forms of an answer: the JSON that a model is asked for, and how its text is read. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from capsfusion_etl.engines.unwrap import plain, unwrap
from capsfusion_etl.judge.opinion import VERDICTS
from capsfusion_etl.prompts import FUSED


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What the answer to a prompt looks like.

    Attributes:
        name: name of the schema.
        properties: the fields of the JSON object, all required, as JSON schemas.
        read: function from the content of an answer to its text and None, or None and why there is none.
    """

    name: str
    properties: dict[str, dict[str, Any]]
    read: Callable[[Any], tuple[str | None, str | None]]

    @property
    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of an answer."""
        return {
            "type": "object",
            "properties": self.properties,
            "required": list(self.properties),
            "additionalProperties": False,
        }

    @property
    def response_format(self) -> dict[str, Any]:
        """Return the field `response_format` of a chat completion."""
        return {"type": "json_schema", "json_schema": {"name": self.name, "strict": True, "schema": self.schema}}


CAPTION = AnswerForm("caption", {"caption": {"type": "string"}}, unwrap)
OPINION = AnswerForm(
    "opinion", {"verdict": {"type": "string", "enum": list(VERDICTS)}, "wrong": {"type": "string"}}, plain
)


def form_of(template: str) -> AnswerForm:
    """Return the form of the answers to a template; one with a slot for the fused caption asks for an opinion."""
    return OPINION if FUSED in template else CAPTION
