"""The quality gate: checks all rules on the tables of a run, records the results, and gives one verdict."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsfusion_etl.errors import first_line
from capsfusion_etl.lake.rejects import rejected_before
from capsfusion_etl.snapshots.catalog import path_of, recorded
from capsfusion_etl.snapshots.manifest import GateResult, Manifest
from capsfusion_etl.spark.persist import persisted
from capsfusion_etl.tables import GATED, QUALITY_RESULTS
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame

from capsfusion_quality.expectations import Facts, validate
from capsfusion_quality.measure import Fact, examples, measure
from capsfusion_quality.profile import Profile, drift, profile, spread
from capsfusion_quality.rules import DRIFT_WORDS, SHAPE_WORDS
from capsfusion_quality.thresholds import Bounded, GateConfig, bounded

if TYPE_CHECKING:
    from capsfusion_etl.lake.run import Run

Row = dict[str, Any]


def bind(config: GateConfig) -> "Callable[[Run, dict[str, DataFrame], str], GateResult]":
    """Return the gate with the thresholds of `config`, as a `Gate` of `capsfusion_etl.stages.publish`.

    Raises:
        InputError: the thresholds are invalid, see `bounded`.
    """
    rules = bounded(config)
    return lambda run, frames, params_hash: gate(run, frames, params_hash, rules, config.folder)


def gate(
    run: "Run", frames: dict[str, DataFrame], params_hash: str, rules: list[Bounded], folder: str | None = None
) -> GateResult:
    """Check the rules, write the results to `quality_results` and Data Docs, and return the verdict.

    A passed result is cached in `gates/` of the lake's folder. It is returned again while the table versions, the rules
    and `params_hash` are the same.

    Args:
        run: the run, with the lake.
        frames: table name -> rows to check.
        params_hash: names the fused captions in `frames`.
        rules: the rules with their bounds.
        folder: folder of the Great Expectations context; None: `gx` in the lake's local folder.
    """
    kept = run.lake.folder / "gates" / f"{_fingerprint(run, params_hash, rules)}.json"
    if kept.is_file():
        return GateResult.of(json.loads(kept.read_text(encoding="utf-8")))
    before = _before(run)
    with _prepared(frames) as prepared:
        shape, drifted = _shape(prepared, before.gate.profile if before is not None else None)
        facts = measure(prepared, rules) | drifted
        facts = _with_examples(prepared, rules, facts)
    local, docs = run.lake.local_folder, run.lake.folder / "quality"
    holds = validate(rules, facts, Path(folder) if folder else local / "gx", local / "quality")
    if docs != local / "quality":  # Great Expectations writes only to local disks
        docs.fs.put(f"{local}/quality/", f"{docs.path}/", recursive=True)  # type: ignore[attr-defined]
    _record(run, [_row(item, facts[_key(item)], holds[_key(item)]) for item in rules])
    failed = [item for item in rules if not holds[_key(item)]]
    refusing = [item for item in failed if item.limit.severity == "fail"]
    refused = {item.suite for item in refusing}
    result = GateResult(
        passed=not refusing,
        expectations=len(rules),
        failures=tuple(_words(item, facts[_key(item)]) for item in refusing),
        report=str(docs / "index.html"),
        warnings=tuple(_words(item, facts[_key(item)]) for item in failed if item.limit.severity == "warn"),
        checked_at=datetime.now(UTC).isoformat(timespec="seconds"),
        profile=shape,
        suites={item.suite: item.suite not in refused for item in rules},
    )
    text = json.dumps(asdict(result), indent=1)
    kept.parent.mkdir(parents=True, exist_ok=True)
    (kept.parent / "last.json").write_text(text, encoding="utf-8")  # for the report
    if result.passed:
        kept.write_text(text, encoding="utf-8")
    return result


def _shape(frames: dict[str, DataFrame], past: Profile | None) -> tuple[Profile, Facts]:
    """Return the profile of the candidate, and the facts of the suites `shape` and `drift` (against `past`)."""
    try:
        shape = profile(frames["training_pairs"], frames["fused_captions"], frames["pairs"])
        found = {"shape": spread(shape), "drift": drift(shape, past or None)}
    except AnalysisException as error:  # wrong column types, which the rules of the tables report
        fault = Fact(None, first_line(str(error)))
        shape, found = {}, {"shape": dict.fromkeys(SHAPE_WORDS, fault), "drift": dict.fromkeys(DRIFT_WORDS, fault)}
    return shape, {(suite, name): fact for suite, facts in found.items() for name, fact in facts.items()}


def _with_examples(frames: dict[str, DataFrame], rules: list[Bounded], facts: Facts) -> Facts:
    """Add example rows to the facts that exceed an upper bound; only these cost a query.

    A value below a lower bound (an acceptance rate, a count) has no row that broke the rule.
    """
    found = dict(facts)
    for item in rules:
        fact, (_, high) = facts[_key(item)], item.limit.bounds()
        if fact.value is not None and high is not None and fact.value > high and item.suite in frames:
            found[_key(item)] = replace(fact, examples=examples(frames[item.suite], item.rule) or fact.examples)
    return found


def _key(item: Bounded) -> tuple[str, str]:
    return item.suite, item.rule.name


def _fingerprint(run: "Run", params_hash: str, rules: list[Bounded]) -> str:
    versions = {t: run.lake.versions.get(t) or run.lake.version(t) for t in GATED}
    parts = [versions, params_hash, [asdict(r) for r in rules]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _before(run: "Run") -> Manifest | None:
    """Return the manifest of the latest snapshot; None if there is none, or its file is missing."""
    rows = recorded(run.lake)
    path = path_of(run.lake, rows[-1]) if rows else None
    return Manifest.parse(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else None


@contextmanager
def _prepared(frames: dict[str, DataFrame]) -> Iterator[dict[str, DataFrame]]:
    """Drop the image bytes, which no rule reads, and add `accounted_for`: pairs that are published or rejected.

    The joined frames are cached within the `with` block, as several queries read them.
    """
    gone = frames["rejects"].where(rejected_before("publish")).select("pair_id")
    with persisted(frames["training_pairs"]) as published, persisted(frames["fused_captions"]) as fused:
        yield {
            **frames,
            "images": frames["images"].drop("bytes"),
            "training_pairs": published,
            "fused_captions": fused,
            "accounted_for": gone.unionByName(published.select("pair_id")),
        }


def _row(item: Bounded, fact: Fact, holds: bool) -> Row:
    """Return a row of `quality_results` without run_id and checked_at."""
    low, high = item.limit.bounds()
    observed = {"seen": fact.seen} | ({"examples": list(fact.examples)} if fact.examples else {})
    return {
        "table_name": item.suite,
        "rule": item.rule.name,
        "expectation": item.words,
        "severity": item.limit.severity,
        "success": holds,
        "value": fact.value,
        "min_value": low,
        "max_value": high,
        "observed": json.dumps(observed, ensure_ascii=False),
        "unexpected_rows": fact.rows,
    }


def _words(item: Bounded, fact: Fact) -> str:
    shown = f"; for example {' | '.join(fact.examples)}" if fact.examples else ""
    return f"{item.suite}: {item.words} (seen: {fact.seen[:200]}{shown})"


def _record(run: "Run", rows: list[Row]) -> None:
    now = datetime.now(UTC)
    stamped = [{**row, "run_id": run.run_id, "checked_at": now} for row in rows]
    order = [name for name, _, _ in QUALITY_RESULTS.columns]
    values = [tuple(row[name] for name in order) for row in stamped]
    # A version of its own for each call: the gate may check more than once in a run.
    run.lake.record("quality_results", values, app_id=f"{run.run_id}/quality", version=int(now.timestamp() * 1000))
