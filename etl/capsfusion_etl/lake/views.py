"""SQL views for the most frequent questions of analysts; docs/sql.md has examples."""

from typing import TYPE_CHECKING

from capsfusion_etl.strategies import STRATEGIES
from capsfusion_etl.tables import TABLES, literal

if TYPE_CHECKING:
    from capsfusion_etl.lake.lake import Lake

_LATEST = ",\n  ".join(
    f"max_by(f.caption, f.run_id) FILTER (WHERE f.strategy = '{s}') AS {s.replace('-', '_')}" for s in STRATEGIES
)
# Name -> (comment, SQL over the tables of the lake). run_ids sort by time.
VIEWS: dict[str, tuple[str, str]] = {
    "v_funnel": (
        "Where the pairs went: one row for each stage and reason, and what is published",
        """SELECT stage, reason, count(*) AS pairs, count(*) / (SELECT count(*) FROM {pairs}) AS share
FROM {rejects} GROUP BY stage, reason
UNION ALL
SELECT 'publish', strategy, count(*), count(*) / (SELECT count(*) FROM {pairs})
FROM {training_pairs} GROUP BY strategy""",
    ),
    "v_captions": (
        "Each pair with the newest caption of every strategy, each in a column with the name of the strategy",
        f"""SELECT p.pair_id, p.url, p.raw_caption, max_by(f.synthetic_caption, f.run_id) AS synthetic_caption,
  {_LATEST},
  max_by(f.verdict, f.run_id) FILTER (WHERE f.strategy = 'fused') AS fused_verdict,
  max_by(f.ledger.recall, f.run_id) FILTER (WHERE f.strategy = 'fused') AS fused_recall
FROM {{pairs}} p JOIN {{fused_captions}} f ON f.pair_id = p.pair_id
GROUP BY p.pair_id, p.url, p.raw_caption""",
    ),
    "v_spend": (
        "What each run spent on an engine, and the cost of a thousand accepted captions",
        """SELECT s.run_id, s.stage, s.params_hash, s.rows, s.prompt_tokens, s.completion_tokens, s.lost_requests,
  s.usd, a.accepted, 1000 * s.usd / nullif(a.accepted, 0) AS usd_per_1000_accepted
FROM (SELECT run_id, stage, params_hash, sum(rows) AS rows, sum(prompt_tokens) AS prompt_tokens,
    sum(completion_tokens) AS completion_tokens, sum(lost_requests) AS lost_requests, sum(settled_usd) AS usd
  FROM {spend} GROUP BY run_id, stage, params_hash) s
LEFT JOIN (SELECT run_id, params_hash, count_if(verdict = 'accepted') AS accepted
  FROM {fused_captions} GROUP BY run_id, params_hash) a
ON a.run_id = s.run_id AND a.params_hash = s.params_hash""",
    ),
    "v_quality_trend": (
        "Results of the gate over time: the value of each rule, and its change since the previous check",
        """SELECT table_name, rule, checked_at, severity, success, value, min_value, max_value,
  value - lag(value) OVER (PARTITION BY table_name, rule ORDER BY checked_at) AS change, observed, run_id
FROM {quality_results}""",
    ),
}


def create(lake: "Lake") -> None:
    """Create temporary views, so that the session knows the tables and VIEWS by their plain names.

    A lake in a catalog also has VIEWS as permanent views (see `create_in_catalog`).
    """
    for name in TABLES:
        lake.live(name).createOrReplaceTempView(name)
    for name, (_, sql) in VIEWS.items():
        lake.spark.sql(sql.format(**{table: table for table in TABLES})).createOrReplaceTempView(name)


def create_in_catalog(lake: "Lake") -> None:
    """Create the missing VIEWS in the schema of a lake in a catalog."""
    refs = {table: lake.ref(table) for table in TABLES}
    for name, (comment, sql) in VIEWS.items():
        if not lake.exists(name):
            head = f"CREATE VIEW IF NOT EXISTS {lake.ref(name)} COMMENT {literal(comment)}"
            lake.spark.sql(f"{head} AS {sql.format(**refs)}")
