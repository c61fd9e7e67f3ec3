"""The report: one HTML file, readable offline, that shows why pairs were rejected and how good the captions are."""

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from capsfusion_quality import report_data as facts
from capsfusion_quality.highlight import highlight

if TYPE_CHECKING:
    from capsfusion_etl.lake.run import Run


def write(run: "Run", params_hash: str) -> Path:
    """Write `report.html` beside the tables, or into the work folder if that is elsewhere; return its path."""
    from jinja2 import Environment, PackageLoader

    lake = run.lake
    fused = facts.fused_of(lake, params_hash)
    environment = Environment(
        loader=PackageLoader("capsfusion_quality"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["highlight"] = highlight
    environment.filters["seen"] = lambda observed: json.loads(observed or "{}").get("seen", "")
    last = facts.last_gate(lake.folder)
    environment.filters["percent"] = lambda share: "–" if share is None else f"{share:.1%}"
    newest = lake.read("quality_results").agg(F.max("checked_at")).collect()[0][0]
    text = environment.get_template("report.html").render(
        lake=lake.root,
        run_id=run.run_id,
        funnel=facts.funnel(lake),
        score=facts.scorecard(fused),
        examples=facts.examples(lake, fused),
        worst=facts.worst(lake, fused),
        rejected=facts.rejected(lake),
        gate=facts.rows_of(lake.read("quality_results").where(F.col("checked_at") == newest)) if newest else [],
        docs="_capsfusion/quality/index.html",
        snapshots=facts.rows_of(lake.read("snapshots").orderBy("created_at")),
        training=facts.training(lake.local_folder),
        engines=facts.engines(fused),
        throughput=facts.throughput(lake),
        profile=last.get("profile", {}),
        lengths=facts.histogram(last.get("profile", {}).get("words", {})),
        nonce=secrets.token_hex(16),
        runs=facts.rows_of(lake.read("runs").orderBy(F.desc("started_at")).limit(20)),
    )
    path = (lake.folder.parent if lake.folder.name == "_capsfusion" else lake.folder) / "report.html"
    path.write_text(text, encoding="utf-8")
    return path
