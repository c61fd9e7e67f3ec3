"""Measure the facts that the rules of the gate bound: one pass over each table, all tables in one Spark job.

Great Expectations on Spark runs at least one query for each expectation, and caches the tables. Here Spark computes all
rules of a table in one aggregation, and Great Expectations only validates the resulting facts.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from itertools import chain

from capsfusion_etl.errors import first_line
from capsfusion_etl.tables import TABLES
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from capsfusion_quality.rules import REFERENCES, Rule
from capsfusion_quality.thresholds import SCHEMA, Bounded

EXAMPLES = 3
OF_PROFILE = ("shape", "drift")  # suites whose facts come from `profile`


@dataclass(frozen=True, slots=True)
class Fact:
    """The measurement for one rule.

    Attributes:
        value: for a rule with `broken`, the share of rows that break it, 0 to 1; else the value itself. None if it
            could not be computed.
        seen: the measurement in words, or why there is none.
        rows: number of rows that break the rule.
        examples: a few of these rows as text.
    """

    value: float | None
    seen: str
    rows: int | None = None
    examples: tuple[str, ...] = ()


def measure(frames: dict[str, DataFrame], rules: Iterable[Bounded]) -> dict[tuple[str, str], Fact]:
    """Return (suite, rule name) -> fact for all rules about tables and about references between tables."""
    by_suite: dict[str, list[Rule]] = {}
    for item in rules:
        if item.suite not in OF_PROFILE:
            by_suite.setdefault(item.suite, []).append(item.rule)
    facts: dict[tuple[str, str], Fact] = {}
    asked: list[DataFrame] = []
    for suite, mine in by_suite.items():
        frame = _orphans(frames, mine) if suite == "references" else frames[suite]
        if suite != "references":
            facts[suite, SCHEMA.name] = _schema(suite, frame)
            mine = [rule for rule in mine if rule is not SCHEMA]
            frame, broken = _aggregate(frame, mine)
            facts.update({(suite, name): fact for name, fact in broken.items()})
        asked.append(frame.select(F.lit(suite).alias("suite"), F.to_json(F.struct("*")).alias("facts")))
    for row in _union(asked).collect():
        found = json.loads(row["facts"])
        for rule in by_suite[row["suite"]]:
            if rule is not SCHEMA and (row["suite"], rule.name) not in facts:
                facts[row["suite"], rule.name] = _fact(rule, found)
    return facts


def _aggregate(frame: DataFrame, rules: list[Rule]) -> tuple[DataFrame, dict[str, Fact]]:
    """Return a frame of one row with a column for each valid rule, and facts for the rules that Spark refuses."""
    columns = {r.name: F.expr(f"count_if({r.broken})" if r.broken else str(r.value)).alias(f"_{r.name}") for r in rules}
    broken: dict[str, Fact] = {}
    if _refused(frame, list(columns.values())):  # a column is missing or has a wrong type: find which rules it breaks
        reasons = {name: _refused(frame, [column]) for name, column in columns.items()}
        broken = {name: Fact(None, reason) for name, reason in reasons.items() if reason}
    good = [column for name, column in columns.items() if name not in broken]
    return frame.agg(F.count("*").alias("rows_in_all"), *good), broken


def _refused(frame: DataFrame, columns: list[Column]) -> str | None:
    try:
        _ = frame.agg(F.count("*"), *columns).schema
    except AnalysisException as error:
        return first_line(str(error))
    return None


def _fact(rule: Rule, found: dict[str, float]) -> Fact:
    total, value = int(found["rows_in_all"]), found.get(f"_{rule.name}")
    if rule.broken is None:
        return Fact(None if value is None else float(value), "no rows" if value is None else f"{value:,.4g}")
    count = int(value or 0)
    share = count / total if total else 0.0
    if rule.sampled:
        low, high = interval(count, total)
        return Fact(
            low, f"{count:,} of {total:,} sampled rows ({share:.1%}; 95 % interval {low:.1%} to {high:.1%})", count
        )
    return Fact(share, f"{count:,} of {total:,} rows" + (f" ({share:.2%})" if count else ""), count)


def interval(count: int, total: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share that `count` of `total` sampled rows have; 0 to 1 without rows."""
    from scipy.stats import binomtest

    if not total:
        return 0.0, 1.0
    found = binomtest(count, total).proportion_ci()
    return float(found.low), float(found.high)


def _schema(table: str, frame: DataFrame) -> Fact:
    """Count the columns of a wrong type. Missing columns do not count: `gate` drops those that no rule reads."""
    there = {name: kind.replace(" ", "") for name, kind in frame.dtypes}
    wrong = []
    for name, kind, _ in TABLES[table].columns:
        if name in there and there[name] != kind.replace(" ", ""):
            wrong.append(f"{name} is {there[name]}, not {kind}")
    return Fact(float(len(wrong)), "; ".join(wrong) or "as documented", examples=tuple(wrong[:EXAMPLES]))


def _union(frames: list[DataFrame]) -> DataFrame:
    # A method of each frame, not DataFrame.unionByName: before Spark 4, frames of Connect are of another class.
    return reduce(lambda some, more: some.unionByName(more), frames)


def _orphans(frames: dict[str, DataFrame], rules: list[Rule]) -> DataFrame:
    """Return one row with the number of dangling pair_ids of each reference; one shuffle instead of a join for each."""
    wanted = [REFERENCES[rule.name] for rule in rules]
    tables = sorted(set(chain(*wanted)))
    keys = [frames[t].select("pair_id", *(F.lit(t == other).alias(other) for other in tables)) for t in tables]
    together = _union(keys).where("pair_id IS NOT NULL")
    found = together.groupBy("pair_id").agg(*(F.max(t).alias(t) for t in tables))
    lost = [F.count_if(F.col(c) & ~F.col(p)).alias(f"_{r.name}") for r, (c, p) in zip(rules, wanted, strict=True)]
    return found.agg(F.lit(0).alias("rows_in_all"), *lost)


def examples(frame: DataFrame, rule: Rule) -> tuple[str, ...]:
    """Return a few rows that break the rule, as text: pair_id and the column `rule.shows`, 80 characters of each."""
    if rule.broken is None:
        return ()
    shown = [c for c in dict.fromkeys(("pair_id", rule.shows)) if c in frame.columns]
    rows = frame.where(rule.broken).select(*(F.substring(F.col(c).cast("string"), 1, 80) for c in shown))
    return tuple(" ".join("" if v is None else str(v) for v in row) for row in rows.limit(EXAMPLES).collect())
