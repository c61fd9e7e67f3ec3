"""The SQL function `capsfusion_grounding` on one row; `udfs` registers it in Spark, `embedded_sql` in DuckDB."""

from dataclasses import asdict
from typing import Any

from capsfusion_etl.judge import judge

GROUNDING = (
    "verdict string, detail string, kept array<string>, lost array<string>, invented_numbers array<string>, "
    "invented_names array<string>, recall double, unsupported array<string>, embellished array<string>"
)


def grounding(raw: str | None, synthetic: str | None, fused: str | None) -> dict[str, Any]:
    """Return the judge's verdict on a fused caption, with the fields of GROUNDING; null texts count as empty."""
    found = judge(raw or "", synthetic or "", fused or "")
    facts = {name: list(words) for name, words in asdict(found.grounding).items()}
    return facts | {
        "verdict": found.verdict,
        "detail": found.detail,
        "recall": found.grounding.recall,
        "unsupported": list(found.support.all_unsupported),
        "embellished": list(found.support.embellished),
    }
