"""Data of the report, read from the tables: lists and dicts whose size does not grow with the lake."""

import base64
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsfusion_etl.images import to_rgb
from capsfusion_etl.judge.opinion import FAITHFUL
from capsfusion_etl.lake.image_files import image_bytes
from capsfusion_etl.lake.opinions import newest_opinions
from capsfusion_etl.lake.rejects import surviving
from capsfusion_etl.tables import STAGES
from PIL import Image
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_quality.measure import interval

if TYPE_CHECKING:
    from capsfusion_etl.lake.lake import Lake

EXAMPLES, WORST = 24, 24
THUMBNAIL = 220  # pixels, longer side
# Shares of the captions that the paper's authors released, computed with the same checks.
PUBLISHED = {
    "instruction_echo": 0.0382,
    "cut_off": 0.0258,
    "concatenation": 0.0273,
    "residue": 0.0106,
    "invented_number": 0.0095,
    "invented_name": 0.0256,
}
Rows = list[dict[str, Any]]


def rows_of(frame: DataFrame) -> Rows:
    """Collect a small frame as dicts."""
    return [row.asDict(recursive=True) for row in frame.collect()]


def funnel(lake: "Lake") -> Rows:
    """Return, for each stage, the number of rejected pairs (`gone`), the reasons, and the surviving pairs (`left`)."""
    counts = rows_of(lake.read("rejects").groupBy("stage", "reason").count().orderBy(F.desc("count"), "reason"))
    ingest = [c for c in counts if c["stage"] == "ingest"]
    # Not repeated_row, which rejects only the copy, and not taken_down, whose pairs have left the table.
    gone = sum(c["count"] for c in ingest if c["reason"] == "gone")
    left = lake.read("pairs").count() - gone
    steps = [{"stage": "ingest", "left": left, "gone": gone, "reasons": ingest}]
    for stage in STAGES[1:]:
        reasons = [c for c in counts if c["stage"] == stage]
        gone = sum(c["count"] for c in reasons)
        left -= gone
        steps.append({"stage": stage, "left": left, "gone": gone, "reasons": reasons})
    return steps


def fused_of(lake: "Lake", params_hash: str) -> DataFrame:
    """Return the rows of `fused_captions` with this `params_hash`, of pairs that no stage before fuse rejected."""
    rows = lake.read("fused_captions").where(F.col("params_hash") == params_hash)
    return rows.join(surviving(lake, before="fuse").select("pair_id"), "pair_id", "left_semi")


def scorecard(fused: DataFrame) -> dict[str, Any]:
    """Return the share of each verdict beside the published one, and recall, tokens, cost and attempts."""
    verdicts = {r["verdict"]: r["count"] for r in rows_of(fused.groupBy("verdict").count())}
    total = sum(verdicts.values())
    accepted = F.col("verdict") == "accepted"
    sums = rows_of(
        fused.agg(
            F.mean("ledger.recall").alias("recall"),
            F.mean(F.when(accepted, F.col("ledger.recall"))).alias("accepted_recall"),
            F.sum(F.col("prompt_tokens") + F.col("completion_tokens")).alias("tokens"),
            F.sum("cost_usd").alias("cost_usd"),
            F.mean("attempts").alias("attempts"),
        )
    )[0]
    names = ["accepted", *sorted(set(PUBLISHED) | (set(verdicts) - {"accepted"}))]
    lines = [
        {
            "verdict": n,
            "rows": verdicts.get(n, 0),
            "share": verdicts.get(n, 0) / max(total, 1),
            "published": PUBLISHED.get(n),
        }
        for n in names
    ]
    return {"total": total, "lines": lines, **sums}


def examples(lake: "Lake", fused: DataFrame) -> Rows:
    """Return the accepted rows that keep most facts, with thumbnails if the lake has images."""
    best = fused.where("verdict = 'accepted'").orderBy(F.size("ledger.kept").desc(), "pair_id").limit(EXAMPLES)
    return [row | {"picture": thumbnail(row.pop("bytes"))} for row in rows_of(_with_picture(lake, best))]


def worst(lake: "Lake", fused: DataFrame) -> Rows:
    """Return rows whose verdict is not `accepted`, ordered by verdict."""
    refused = fused.where("verdict <> 'accepted'").orderBy("verdict", "pair_id").limit(WORST)
    return [row | {"picture": thumbnail(row.pop("bytes"))} for row in rows_of(_with_picture(lake, refused))]


def opinions(lake: "Lake", fused: DataFrame) -> dict[str, Any]:
    """Return what a second opinion says of the accepted captions; empty if it was not asked.

    Returns:
        `model`; `asked`, the captions that got an opinion; `verdicts`, verdict -> count; `faithful`, the share of them
        that is neither false nor broken, with the ends `low` and `high` of its 95 % interval; `wrong`, at most WORST
        rows on which it disagrees with the judge.
    """
    given = newest_opinions(lake, fused).where("verdict <> 'engine_error'")
    counts = rows_of(given.groupBy("model", "verdict").count().orderBy("verdict"))
    verdicts = {row["verdict"]: row["count"] for row in counts}
    asked, faithful = sum(verdicts.values()), sum(verdicts.get(verdict, 0) for verdict in FAITHFUL)
    if not asked:
        return {}
    low, high = interval(faithful, asked)
    wrong = given.where(~F.col("verdict").isin(*FAITHFUL)).select("pair_id", "verdict", "detail")
    shown = wrong.join(fused.select("pair_id", "raw_caption", "synthetic_caption", "caption"), "pair_id")
    return {
        "model": counts[0]["model"],
        "asked": asked,
        "verdicts": verdicts,
        "faithful": faithful / asked,
        "low": low,
        "high": high,
        "wrong": rows_of(shown.orderBy("verdict", "pair_id").limit(WORST)),
    }


def engines(fused: DataFrame) -> Rows:
    """Return captions, acceptance, recall and cost for each engine, model, revision and strategy."""
    accepted = F.col("verdict") == "accepted"
    made = fused.groupBy("engine", "model", "revision", "strategy").agg(
        F.count("*").alias("captions"),
        F.avg(accepted.cast("int")).alias("accepted"),
        F.avg(F.when(accepted, F.col("ledger.recall"))).alias("recall"),
        F.sum("cost_usd").alias("usd"),
        F.count_if(accepted).alias("accepted_rows"),
    )
    return rows_of(made.orderBy(F.desc("captions")))


def throughput(runs: Rows) -> Rows:
    """Return rows per second of each stage, in its last successful run that wrote rows.

    Args:
        runs: rows of the table `runs`, newest first.
    """
    last: dict[str, dict[str, Any]] = {}
    for row in runs:
        if row["status"] == "ok" and row["rows_out"] > 0:
            last.setdefault(row["stage"], row)
    return [
        {
            "stage": stage,
            "rows": row["rows_out"],
            "rate": row["rows_out"] / max((row["finished_at"] - row["started_at"]).total_seconds(), 1e-3),
        }
        for stage, row in last.items()
    ]


def last_gate(folder: Path) -> dict[str, Any]:
    """Return the fields of the last GateResult; empty if the gate has not run."""
    path = folder / "gates" / "last.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def histogram(words: dict[str, int], width: int = 560, height: int = 120) -> list[dict[str, float]]:
    """Return the bars of an SVG histogram, by length in words.

    Args:
        words: length in words -> number of captions.
        width: width of the SVG in its own units.
        height: height of the SVG in its own units.
    """
    counts = {int(name): count for name, count in words.items()}
    top, last = max(counts.values(), default=1), max(counts, default=0)
    each = width / (last + 1)
    return [
        {
            "x": i * each,
            "y": height - n / top * height,
            "w": max(each - 1, 1),
            "h": n / top * height,
            "words": i,
            "n": n,
        }
        for i, n in sorted(counts.items())
    ]


def _with_picture(lake: "Lake", fused: DataFrame) -> DataFrame:
    urls = lake.read("pairs").select("pair_id", "url")
    return fused.join(urls, "pair_id").join(image_bytes(lake).drop("image_id"), "url", "left")


def rejected(lake: "Lake", limit: int = 60) -> Rows:
    """Return the first `limit` rows of `rejects` with URL and raw caption, ordered by stage and reason."""
    pairs = lake.read("pairs").select("pair_id", "url", F.substring("raw_caption", 1, 160).alias("raw_caption"))
    return rows_of(lake.read("rejects").join(pairs, "pair_id").orderBy("stage", "reason", "pair_id").limit(limit))


def thumbnail(data: bytes | None) -> str | None:
    """Return a small JPEG as a data: URL, so that the report needs no other file; None if it cannot be decoded."""
    if data is None:
        return None
    try:
        with Image.open(io.BytesIO(data)) as opened:
            small = to_rgb(opened)
    except Exception:  # noqa: BLE001  a decoder may raise anything: the row is shown without its image
        return None
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def training(folder: Path) -> Rows:
    """Return the metrics, loss curve and evaluation of each training in `checkpoints/`."""
    found = []
    for metrics in sorted(folder.glob("checkpoints/*/metrics.jsonl")):
        lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        evaluation = metrics.parent / "evaluation.json"
        found.append(
            {
                "name": metrics.parent.name,
                "steps": lines,
                "curve": curve([line["loss"] for line in lines]),
                "evaluation": json.loads(evaluation.read_text(encoding="utf-8")) if evaluation.is_file() else None,
            }
        )
    return found


def curve(values: list[float], width: int = 560, height: int = 120) -> str:
    """Return `values` as the points of an SVG polyline."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return " ".join(
        f"{i * width / (len(values) - 1):.1f},{height - (v - low) / span * height:.1f}" for i, v in enumerate(values)
    )
