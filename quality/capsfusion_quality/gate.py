"""The gate: every suite over its table with Great Expectations on Spark, results as rows, Data Docs and one verdict."""

import contextlib
import hashlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsfusion_etl.manifest import GateResult
from capsfusion_etl.tables import QUALITY_RESULTS
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_quality.suites import Check, GateConfig, suites

if TYPE_CHECKING:
    from capsfusion_etl.runlog import Run

_LOOKED_AT = ("pairs", "images", "rejects", "fused_captions", "alarms")
Row = dict[str, Any]


def bind(config: GateConfig) -> "Callable[[Run, dict[str, DataFrame], str], GateResult]":
    """The gate with its thresholds, as `capsfusion_etl.publish` wants it."""
    return lambda run, frames, made_by: gate(run, frames, made_by, config)


def gate(run: "Run", frames: dict[str, DataFrame], made_by: str, config: GateConfig) -> GateResult:
    """Check `frames` (table name -> rows) and record what was found.

    A gate that passed is not asked again while tables, thresholds and `made_by` (the fused_captions that count)
    are the same: its result is kept beside the lake.
    """
    kept = run.lake.folder / "gates" / f"{_fingerprint(run, made_by, config)}.json"
    if kept.is_file():
        data = json.loads(kept.read_text(encoding="utf-8"))
        return GateResult(**(data | {"failures": tuple(data["failures"])}))
    docs = run.lake.folder / "quality"
    rows = check(_prepared(frames), suites(config), docs)
    _record(run, rows)
    failures = tuple(_words(r) for r in rows if not r["success"] and r["severity"] == "fail")
    result = GateResult(not failures, len(rows), failures, str(docs / "index.html"))
    if result.passed:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")
    return result


def _fingerprint(run: "Run", made_by: str, config: GateConfig) -> str:
    versions = {t: run.lake.version(t) for t in _LOOKED_AT}
    return hashlib.sha256(json.dumps([versions, made_by, asdict(config)], sort_keys=True).encode()).hexdigest()[:16]


def _prepared(frames: dict[str, DataFrame]) -> dict[str, DataFrame]:
    """Add the columns that expectations about shares need, and the pairs whose fate nobody wrote down."""
    accepted = (F.col("verdict") == "accepted").cast("int")
    fused = frames["fused_captions"].select(
        "pair_id",
        "verdict",
        accepted.alias("accepted"),
        F.when(accepted == 1, F.col("ledger.recall")).alias("accepted_recall"),
    )
    gone = frames["rejects"].where("stage <> 'ingest'").select("pair_id")
    lost = frames["pairs"].select("pair_id").join(gone, "pair_id", "left_anti")
    return {
        "pairs": frames["pairs"].select("pair_id", "raw_caption"),
        "images": frames["images"].select("url", "error"),
        "rejects": frames["rejects"],
        "fused_captions": fused,
        "training_pairs": frames["training_pairs"].drop("image"),
        "alarms": frames["alarms"],
        "lost_pairs": lost.join(frames["training_pairs"].select("pair_id"), "pair_id", "left_anti"),
    }


def check(frames: dict[str, DataFrame], plan: dict[str, list[Check]], docs: Path) -> list[Row]:
    """Validate each frame against its checks; returns one row for each, and writes Data Docs into `docs`."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    with _quiet():
        import great_expectations as gx

        context = gx.get_context(mode="ephemeral")
        site = {"class_name": "SiteBuilder", "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"}}
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)}
        for name in list(context.variables.data_docs_sites or {}):
            context.delete_data_docs_site(name)
        context.add_data_docs_site("lake", {**site, "store_backend": store})  # type: ignore[typeddict-item]
        # persist=False: serverless Spark refuses it, and the tables are read from Delta anyway
        source = context.data_sources.add_spark("lake", persist=False)
        rows = [
            row for table, checks in plan.items() for row in _check_table(context, source, table, checks, frames[table])
        ]
        context.build_data_docs()
    return rows


def _check_table(context: Any, source: Any, table: str, checks: list[Check], rows: DataFrame) -> Iterator[Row]:
    import great_expectations as gx

    batch = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("all")
    suite = gx.ExpectationSuite(name=table)
    for position, item in enumerate(checks):
        item.expectation.meta = {"position": position}
        item.expectation.notes = item.words
        suite.add_expectation(item.expectation)
    suite = context.suites.add(suite)
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=table, data=batch, suite=suite))
    outcome = definition.run(batch_parameters={"dataframe": rows}, result_format="SUMMARY")
    for result in sorted(outcome.results, key=lambda r: r.expectation_config.meta["position"]):
        item = checks[result.expectation_config.meta["position"]]
        raised = next((e["exception_message"] for e in _exceptions(result.exception_info)), None)
        found = result.result
        yield {
            "table_name": table,
            "expectation": item.words,
            "severity": item.severity,
            "success": bool(result.success),
            "observed": json.dumps(raised or _observed(found), default=str, ensure_ascii=False),
            "unexpected_rows": found.get("unexpected_count"),
        }


def _exceptions(info: dict[str, Any]) -> list[dict[str, Any]]:
    entries = [info] if "raised_exception" in info else list(info.values())
    return [e for e in entries if e.get("raised_exception")]


def _observed(result: dict[str, Any]) -> Any:
    if "observed_value" in result:
        return result["observed_value"]
    return {"rows": result.get("element_count"), "examples": (result.get("partial_unexpected_list") or [])[:5]}


def _words(row: Row) -> str:
    return f"{row['table_name']}: {row['expectation']} (seen: {row['observed'][:200]})"


def _record(run: "Run", rows: list[Row]) -> None:
    now = datetime.now(UTC)
    stamped = [{**row, "run_id": run.run_id, "checked_at": now} for row in rows]
    order = [name for name, _, _ in QUALITY_RESULTS.columns]
    values = [tuple(row[name] for name in order) for row in stamped]
    frame = run.lake.spark.createDataFrame(values, QUALITY_RESULTS.schema())
    # One commit for each time that the gate is asked in a run.
    run.lake.append("quality_results", frame, app_id=f"{run.run_id}/quality", version=int(now.timestamp() * 1000))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Great Expectations prints progress bars and warns about its own insides."""
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
