"""Writes docs/tables.md from the code: `make docs`. A test sees to it that the page is up to date."""

from pathlib import Path

from capsfusion_etl.engines.base import ENGINE_ERROR
from capsfusion_etl.judge import ACCEPTED, CHECKS
from capsfusion_etl.stages.fuse.attempts import DOUBTED, SHIFTED
from capsfusion_etl.stages.fuse.worker import ABSTAINED
from capsfusion_etl.tables import REJECT_REASONS, TABLES

PAGE = Path(__file__).parent / "tables.md"


def page() -> str:
    """The page as Markdown."""
    parts = [
        "# Tables, reasons and verdicts",
        "Made by `make docs` from `capsfusion_etl.tables` and `capsfusion_etl.judge`. In a path lake each table is the "
        "folder `LAKE/<name>`, a plain Delta table for any reader; keys are unique.",
    ]
    for table in TABLES.values():
        parts.append(f"## {table.name}\n\n{table.comment}. Key: {', '.join(f'`{k}`' for k in table.key)}.")
        rows = (f"| `{name}` | {kind} | {comment} |" for name, kind, comment in table.columns)
        parts.append("\n".join(["| column | type | meaning |", "|---|---|---|", *rows]))
    parts.append("## Reasons in `rejects`")
    reasons = (f"| {s} | `{r}` | {what} |" for s, found in REJECT_REASONS.items() for r, what in found.items())
    parts.append("\n".join(["| stage | reason | meaning |", "|---|---|---|", *reasons]))
    parts.append("With `fuser.fallback: drop` the stage `fuse` rejects, too; its reasons are the verdicts below.")
    parts.append("## Verdicts in `fused_captions`")
    verdicts = {ACCEPTED: "every check is content"}
    verdicts |= {check.__name__: (check.__doc__ or "").partition("\n")[0] for check in CHECKS}
    verdicts |= {
        ABSTAINED: "not fused: the raw caption says nothing about the picture; the synthetic one is kept",
        DOUBTED: "the engine itself does not trust its answer; the detail says why",
        SHIFTED: "the answer belongs to another row of its batch; raises an alarm",
        ENGINE_ERROR: "the engine gave no answer for this row",
    }
    rows = (f"| `{verdict}` | {meaning} |" for verdict, meaning in verdicts.items())
    parts.append("\n".join(["| verdict | meaning |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
