"""What the lake knows of the exported pairs beside their captions, and what changed since an earlier export."""

from dataclasses import dataclass, replace

import pyarrow as pa

from capsfusion_etl.exports.config import INDEXED, ExportConfig
from capsfusion_etl.exports.rows import Rows
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.queries import queries
from capsfusion_etl.tables import literal

TABLES_ASKED = ("pairs", "fused_captions", "rejects")
# Column of an export -> SQL. `p` is the exported pair, `q` its row in `pairs`, `f` the row of its caption, `u` of the
# newest accepted one of the strategy `fused`.
_COLUMNS = {
    "raw_caption": "q.raw_caption",
    "synthetic_caption": "f.synthetic_caption",
    "fused_caption": "u.caption",
    "ledger": "f.ledger",
    "verdict": "f.verdict",
    "url": "q.url",
    "source": "q.source",
    "extra": "q.extra",
}
# A caption may be made more than once, by several settings: the newest row that has it tells of it.
_OF_CAPTION = """SELECT pair_id, caption, synthetic_caption, ledger, verdict FROM (
  SELECT pair_id, caption, synthetic_caption, ledger, verdict,
    row_number() OVER (PARTITION BY pair_id, caption ORDER BY run_id DESC, params_hash DESC) AS place
  FROM fused_captions WHERE strategy = {strategy}) n WHERE place = 1"""
_FUSED = """SELECT pair_id, caption FROM (
  SELECT pair_id, caption, row_number() OVER (PARTITION BY pair_id ORDER BY run_id DESC, params_hash DESC) AS place
  FROM fused_captions WHERE strategy = 'fused' AND verdict = 'accepted') n WHERE place = 1"""
_NEW = "e.pair_id IS NULL"
_CHANGED = "e.caption <> p.caption OR coalesce(e.image_id, '') <> coalesce(p.image_id, '') OR e.split <> p.split"
_GONE = f"""SELECT g.pair_id, g.image_id, g.reason FROM (
  SELECT e.pair_id, e.image_id, CASE WHEN t.pair_id IS NULL THEN 'removed' ELSE 'taken_down' END AS reason
  FROM earlier e LEFT ANTI JOIN places p ON p.pair_id = e.pair_id
  LEFT JOIN (SELECT DISTINCT pair_id FROM rejects WHERE stage = 'ingest' AND reason = 'taken_down') t
  ON t.pair_id = e.pair_id
  UNION ALL
  SELECT e.pair_id, e.image_id, 'changed' AS reason FROM earlier e JOIN places p ON p.pair_id = e.pair_id
  WHERE {_CHANGED}) g"""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where files beside the shards are written: the other columns by shard, and what is gone by reason."""

    columns: str
    gone: str


def write_beside(
    lake: Lake, config: ExportConfig, rows: list[Rows], earlier: list[str], folders: Folders, *, by_spark: bool
) -> None:
    """Write the other columns of each shard, and which pairs of an earlier export are gone or have changed.

    Args:
        lake: the lake.
        config: what is exported.
        rows: the rows of each shard.
        earlier: files of the index of the earlier export; none: every pair is exported.
        folders: where to write.
        by_spark: whether Spark runs the queries also where DuckDB could.
    """
    with queries(lake, *TABLES_ASKED, by_spark=by_spark) as ask:
        numbered = list(enumerate(replace(one, images=False, beside=None) for one in rows))
        ask.give(
            "places", "shard bigint, pair_id string, image_id string, caption string, split string", numbered, _place
        )
        if earlier:
            ask.read("earlier", earlier, *INDEXED)
        ask.save(_query(config, rows[0].strategy, since=bool(earlier)), folders.columns, "shard")
        if earlier:
            ask.save(_GONE, folders.gone, "reason")


def _place(numbered: tuple[int, Rows]) -> pa.Table:
    """Return the pairs of a shard, with its number."""
    number, rows = numbered
    parts = [table.select(list(INDEXED)) for table, _ in rows.batches()]
    whole = pa.concat_tables(parts)
    return whole.add_column(0, "shard", pa.array([number] * whole.num_rows, pa.int64()))


def _query(config: ExportConfig, strategy: str, *, since: bool) -> str:
    wanted = config.asked
    columns = "".join(f", {_COLUMNS[name]} AS {name}" for name in wanted)
    used = " ".join(_COLUMNS[name] for name in wanted)
    joins = ""
    if "q." in used:
        joins += " LEFT JOIN pairs q ON q.pair_id = p.pair_id"
    if "f." in used:
        of_caption = _OF_CAPTION.format(strategy=literal(strategy))
        joins += f" LEFT JOIN ({of_caption}) f ON f.pair_id = p.pair_id AND f.caption = p.caption"
    if "u." in used:
        joins += f" LEFT JOIN ({_FUSED}) u ON u.pair_id = p.pair_id"
    if since:
        joins += f" LEFT JOIN earlier e ON e.pair_id = p.pair_id WHERE {_NEW} OR {_CHANGED}"
    return f"SELECT p.shard, p.pair_id{columns} FROM places p{joins}"
