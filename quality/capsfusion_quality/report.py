"""The report: one HTML file, readable offline, that shows why pairs were rejected and how good the captions are."""

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from capsfusion_etl.queries import queries
from capsfusion_etl.snapshots.catalog import recorded
from capsfusion_etl.storage import write_whole

from capsfusion_quality import report_data as facts
from capsfusion_quality.highlight import highlight

if TYPE_CHECKING:
    from capsfusion_etl.lake.run import Run


def write(run: "Run", params_hash: str) -> Path:
    """Write `report.html` beside the tables, or into the work folder if that is elsewhere; return its path."""
    from jinja2 import Environment, PackageLoader

    lake = run.lake
    runs = sorted(lake.rows("runs"), key=lambda row: row["started_at"], reverse=True)
    results = lake.rows("quality_results")
    newest = max((row["checked_at"] for row in results), default=None)
    environment = Environment(
        loader=PackageLoader("capsfusion_quality"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["highlight"] = highlight
    environment.filters["seen"] = lambda observed: json.loads(observed or "{}").get("seen", "")
    last = facts.last_gate(lake.folder)
    environment.filters["percent"] = lambda share: "–" if share is None else f"{share:.1%}"
    with queries(lake, *facts.TABLES) as ask:
        facts.define_fused(ask, params_hash)
        captions = {
            "funnel": facts.funnel(ask),
            "rejected": facts.rejected(ask),
            "score": facts.scorecard(ask),
            "examples": facts.examples(lake, ask),
            "worst": facts.worst(lake, ask),
            "engines": facts.engines(ask),
            "opinions": facts.opinions(ask),
        }
    text = environment.get_template("report.html").render(
        lake=lake.root,
        run_id=run.run_id,
        gate=[row for row in results if row["checked_at"] == newest],
        docs="_capsfusion/quality/index.html",
        snapshots=recorded(lake),
        training=facts.training(lake.local_folder),
        throughput=facts.throughput(runs),
        profile=last.get("profile", {}),
        lengths=facts.histogram(last.get("profile", {}).get("words", {})),
        nonce=secrets.token_hex(16),
        runs=runs[:20],
        **captions,
    )
    path = (lake.folder.parent if lake.folder.name == "_capsfusion" else lake.folder) / "report.html"
    write_whole(path, text)
    return path
