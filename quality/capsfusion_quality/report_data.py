"""Data of the report, read from the tables: lists and dicts whose size does not grow with the lake.

The queries are in SQL, so that the report of a lake on this machine needs no Spark.
"""

import base64
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsfusion_etl.errors import InputError
from capsfusion_etl.images import to_rgb
from capsfusion_etl.judge.opinion import FAITHFUL
from capsfusion_etl.lake.image_files import bytes_of
from capsfusion_etl.lake.opinions import NEWEST
from capsfusion_etl.lake.rejects import rejected_before
from capsfusion_etl.queries import Queries
from capsfusion_etl.tables import STAGES, literal
from PIL import Image

from capsfusion_quality.measure import interval

if TYPE_CHECKING:
    from capsfusion_etl.lake.lake import Lake

TABLES = ("pairs", "rejects", "fused_captions", "opinions")  # that the queries name
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


def funnel(ask: Queries) -> Rows:
    """Return, for each stage, the number of rejected pairs (`gone`), the reasons, and the surviving pairs (`left`)."""
    counts = ask.rows("SELECT stage, reason, count(*) AS count FROM rejects GROUP BY stage, reason")
    counts.sort(key=lambda row: (-row["count"], row["reason"]))
    ingest = [c for c in counts if c["stage"] == "ingest"]
    # Not repeated_row, which rejects only the copy, and not taken_down, whose pairs have left the table.
    gone = sum(c["count"] for c in ingest if c["reason"] == "gone")
    left = ask.rows("SELECT count(*) AS count FROM pairs")[0]["count"] - gone
    steps = [{"stage": "ingest", "left": left, "gone": gone, "reasons": ingest}]
    for stage in STAGES[1:]:
        reasons = [c for c in counts if c["stage"] == stage]
        gone = sum(c["count"] for c in reasons)
        left -= gone
        steps.append({"stage": stage, "left": left, "gone": gone, "reasons": reasons})
    return steps


def define_fused(ask: Queries, params_hash: str) -> None:
    """Define `fused`: the rows of `fused_captions` with this hash, of pairs that no stage before fuse rejected."""
    ask.define(
        "fused",
        f"""SELECT f.* FROM fused_captions f LEFT SEMI JOIN pairs p ON p.pair_id = f.pair_id
        LEFT ANTI JOIN (SELECT pair_id FROM rejects WHERE {rejected_before("fuse")}) r ON r.pair_id = f.pair_id
        WHERE f.params_hash = {literal(params_hash)}""",
    )


def scorecard(ask: Queries) -> dict[str, Any]:
    """Return the share of each verdict in `fused` beside the published one, and recall, tokens, cost and attempts."""
    counts = ask.rows("SELECT verdict, count(*) AS count FROM fused GROUP BY verdict")
    verdicts = {row["verdict"]: row["count"] for row in counts}
    total = sum(verdicts.values())
    [sums] = ask.rows(
        """SELECT avg(ledger.recall) AS recall,
        avg(CASE WHEN verdict = 'accepted' THEN ledger.recall END) AS accepted_recall,
        sum(prompt_tokens + completion_tokens) AS tokens, sum(cost_usd) AS cost_usd, avg(attempts) AS attempts
        FROM fused"""
    )
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


def examples(lake: "Lake", ask: Queries) -> Rows:
    """Return the rows of `fused` that are accepted and keep most facts, with thumbnails if the lake has images."""
    return _shown(lake, ask, "verdict = 'accepted'", "coalesce(size(ledger.kept), 0) DESC, pair_id", EXAMPLES)


def worst(lake: "Lake", ask: Queries) -> Rows:
    """Return rows of `fused` whose verdict is not `accepted`, ordered by verdict."""
    return _shown(lake, ask, "verdict <> 'accepted'", "verdict, pair_id", WORST)


def _shown(lake: "Lake", ask: Queries, where: str, order: str, limit: int) -> Rows:
    rows = ask.rows(
        f"""SELECT f.*, p.url FROM (SELECT * FROM fused WHERE {where} ORDER BY {order} LIMIT {limit}) f
        JOIN pairs p ON p.pair_id = f.pair_id ORDER BY {order.replace("pair_id", "f.pair_id")}"""
    )
    images = lake.rows("images", "url", among=[row["url"] for row in rows]) if rows else []
    pictures = {row["url"]: _picture(lake, row) for row in images if row["error"] is None}
    return [row | {"picture": pictures.get(row["url"])} for row in rows]


def _picture(lake: "Lake", row: dict[str, Any]) -> str | None:
    try:
        return thumbnail(bytes_of(lake, row))
    except (InputError, OSError):  # its file is gone, or only the workers can read it
        return None


def opinions(ask: Queries) -> dict[str, Any]:
    """Return what a second opinion says of the accepted captions in `fused`; empty if it was not asked.

    Returns:
        `model`; `asked`, the captions that got an opinion; `verdicts`, verdict -> count; `faithful`, the share of them
        that is neither false nor broken, with the ends `low` and `high` of its 95 % interval; `wrong`, at most WORST
        rows on which it disagrees with the judge.
    """
    ask.define("newest", NEWEST)
    counts = ask.rows(
        """SELECT model, verdict, count(*) AS count FROM newest WHERE verdict <> 'engine_error'
        GROUP BY model, verdict ORDER BY verdict"""
    )
    verdicts = {row["verdict"]: row["count"] for row in counts}
    asked, faithful = sum(verdicts.values()), sum(verdicts.get(verdict, 0) for verdict in FAITHFUL)
    if not asked:
        return {}
    low, high = interval(faithful, asked)
    fine = ", ".join(map(literal, (*FAITHFUL, "engine_error")))
    wrong = ask.rows(
        f"""SELECT o.pair_id, o.verdict, o.detail, f.raw_caption, f.synthetic_caption, f.caption
        FROM newest o JOIN fused f ON f.pair_id = o.pair_id WHERE o.verdict NOT IN ({fine})
        ORDER BY o.verdict, o.pair_id LIMIT {WORST}"""
    )
    return {
        "model": counts[0]["model"],
        "asked": asked,
        "verdicts": verdicts,
        "faithful": faithful / asked,
        "low": low,
        "high": high,
        "wrong": wrong,
    }


def engines(ask: Queries) -> Rows:
    """Return captions in `fused`, acceptance, recall and cost for each engine, model, revision and strategy."""
    return ask.rows(
        """SELECT engine, model, revision, strategy, count(*) AS captions,
        avg(CAST(verdict = 'accepted' AS INT)) AS accepted, count_if(verdict = 'accepted') AS accepted_rows,
        avg(CASE WHEN verdict = 'accepted' THEN ledger.recall END) AS recall, sum(cost_usd) AS usd
        FROM fused GROUP BY engine, model, revision, strategy ORDER BY captions DESC, engine, model, strategy"""
    )


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


def rejected(ask: Queries, limit: int = 60) -> Rows:
    """Return the first `limit` rows of `rejects` with URL and raw caption, ordered by stage and reason."""
    rows = ask.rows(
        f"""SELECT r.stage, r.reason, r.detail, p.pair_id, p.url, p.raw_caption
        FROM rejects r JOIN pairs p ON p.pair_id = r.pair_id ORDER BY r.stage, r.reason, r.pair_id LIMIT {limit}"""
    )
    return [row | {"raw_caption": (row["raw_caption"] or "")[:160]} for row in rows]


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
