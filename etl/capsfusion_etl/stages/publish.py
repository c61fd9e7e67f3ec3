"""Publish: the pairs that went all the way become `training_pairs`, and a gated, named snapshot of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from deltalake import DeltaTable
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.console import say
from capsfusion_etl.errors import GateRefusedError, InputError, RetryError
from capsfusion_etl.ids import check_name
from capsfusion_etl.lake.image_files import image_bytes
from capsfusion_etl.lake.rejects import surviving
from capsfusion_etl.lake.run import Run
from capsfusion_etl.snapshots.catalog import draft_of, manifest_of
from capsfusion_etl.snapshots.manifest import GateResult, Manifest, describe_files
from capsfusion_etl.tables import GATED, SNAPSHOTS, TRAINING_PAIRS

# (run, table name -> rows to look at, what names these rows: a gate may keep its result under it)
Gate = Callable[[Run, dict[str, DataFrame], str], GateResult]
_COMPARE = ("pair_id", "image_id", "caption", "caption_from", "strategy", "split")


@dataclass(frozen=True, slots=True)
class PublishConfig:
    """`name` of the snapshot (null: s0001, s0002...); `strategy`: whose captions; `held_out`: share of pictures kept
    from training; `row_group`: rows in a Parquet row group, few so that a trainer reads what it needs."""

    name: str | None = None
    strategy: str = "fused"
    held_out: float = 0.05
    row_group: int = 128

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name, "snapshot")


def candidate(run: Run, params_hash: str, config: PublishConfig) -> DataFrame:
    """What would be published: rows of training_pairs, from the fused captions that `params_hash` names."""
    lake = run.lake
    images = image_bytes(lake).withColumnRenamed("bytes", "image")
    fused = lake.read("fused_captions").where((F.col("params_hash") == params_hash) & F.col("caption").isNotNull())
    fused = fused.select("pair_id", "caption", "caption_from", "strategy")
    rows = surviving(lake, before="publish").join(fused, "pair_id").join(images, "url", "left")
    # By picture, so that no picture is on both sides.
    position = F.conv(F.substring(F.sha2(F.coalesce("image_id", "pair_id"), 256), 1, 8), 16, 10) / F.lit(16**8)
    split = F.when(position < config.held_out, "held_out").otherwise("train")
    return rows.withColumn("split", split).select(*(name for name, _, _ in TRAINING_PAIRS.columns))


def frames(run: Run, params_hash: str, config: PublishConfig) -> dict[str, DataFrame]:
    """The tables that the gate looks at; `training_pairs` is the candidate, not what was published before."""
    lake = run.lake
    fused = lake.read("fused_captions").where(F.col("params_hash") == params_hash)
    fused = fused.join(surviving(lake, before="fuse").select("pair_id"), "pair_id", "left_semi")
    tables = {name: lake.read(name) for name in ("pairs", "images", "rejects", "synthetic_captions")}
    # What was taken down has a reason, but no pair any more.
    tables["rejects"] = tables["rejects"].where("NOT (stage = 'ingest' AND reason = 'taken_down')")
    tables["alarms"] = lake.read("alarms").where(F.col("params_hash") == params_hash)
    return {**tables, "fused_captions": fused, "training_pairs": candidate(run, params_hash, config)}


def gated(run: Run, params_hash: str, config: PublishConfig, gate: Gate) -> Manifest:
    """Ask the gate, and publish what it let pass: the very versions of the tables that it looked at.

    Raises:
        GateRefusedError: the gate did not pass. Nothing was written.
        InputError: see `publish`.
    """
    run = replace(run, lake=run.lake.pinned(*GATED))
    return publish(run, params_hash, config, validate(run, params_hash, config, gate))


def validate(run: Run, params_hash: str, config: PublishConfig, gate: Gate) -> GateResult:
    """Ask the gate, and say what it said; it does not raise if the gate refuses."""
    run = replace(run, lake=run.lake.pinned(*GATED))
    with run.stage("validate") as counts:
        result = gate(run, frames(run, params_hash, config), params_hash)
        counts.rows_in, counts.rows_out = result.expectations, result.expectations
        counts.rows_rejected = len(result.failures)
        counts.note = "gate passed" if result.passed else "gate refused"
    for failure in result.failures:
        say(f"          failed: {failure}")
    for warning in result.warnings:
        say(f"          warning: {warning}")
    return result


def publish(run: Run, params_hash: str, config: PublishConfig, result: GateResult) -> Manifest:
    """Write training_pairs and a snapshot of it; if nothing has changed, the snapshot that is there.

    Raises:
        GateRefusedError: the gate did not pass. Nothing was written.
        InputError: no pair went all the way, or the name is taken by another content.
        RetryError: another run publishes at the same time, and won.
    """
    if not result.passed:
        raise GateRefusedError(f"not published: {'; '.join(result.failures)}. Report: {result.report}")
    lake = run.lake
    with run.stage("publish") as counts:
        rows = candidate(run, params_hash, config)
        counts.rows_in = int(rows.count())  # Connect of Spark 3.5 counts in NumPy's integers
        if not counts.rows_in:
            raise InputError("nothing to publish: no pair went all the way; `capsfusion report` says where they went")
        changed = lake.settle(
            "training_pairs",
            rows.repartition(max(1, counts.rows_in // 100_000)).sortWithinPartitions("strategy", "split", "pair_id"),
            scope=f"strategy = '{config.strategy}'",
            compare=_COMPARE,
            row_group=config.row_group,
        )
        version = lake.version("training_pairs")
        counts.rows_out = counts.rows_in if changed else 0
        mine = (F.col("version") == version) & (F.col("strategy") == config.strategy)
        known = lake.read("snapshots").where(mine).orderBy("created_at").collect()
        same = [r for r in known if config.name in (None, r["name"])]
        if same:
            counts.note = f"snapshot {same[-1]['name']} is up to date"
            return manifest_of(same[-1])
        manifest = _snapshot(run, config, version, counts.rows_in, result)
        counts.note = f"snapshot {manifest.name}"
        return manifest


def _snapshot(run: Run, config: PublishConfig, version: int, rows: int, result: GateResult) -> Manifest:
    lake, name = run.lake, config.name
    taken = {r["name"] for r in lake.read("snapshots").select("name").collect()}
    if name in taken:
        raise InputError(f"there is a snapshot {name!r} of other data: give this one another name")
    name = name or next(n for n in (f"s{i:04d}" for i in range(1, 10**6)) if n not in taken)
    location = str(lake.detail("training_pairs")["location"]).removeprefix("file:").replace("///", "/")
    table = DeltaTable(location, version=version)
    manifest = Manifest(
        name=name,
        table=location,
        table_id=str(table.metadata().id),
        version=version,
        strategy=config.strategy,
        rows=rows,
        columns=tuple(c for c, _, _ in TRAINING_PAIRS.columns),
        files=describe_files(location, table.get_add_actions(flatten=True), config.strategy),
        gate=result,
    )
    path = lake.folder / "snapshots" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    # Under the run's own name until the table says that the snapshot's name is ours.
    draft = draft_of(path, run.run_id)
    draft.write_text(manifest.text(), encoding="utf-8")
    row = (
        name, config.strategy, manifest.table_id, version, manifest.sha256(), str(path), len(manifest.files),
        sum(f.size for f in manifest.files), rows, "passed", result.report, "published", datetime.now(UTC), run.run_id,
    )  # fmt: skip
    lake.insert_new("snapshots", lake.spark.createDataFrame([row], SNAPSHOTS.schema()))
    won = lake.read("snapshots").where(F.col("name") == name).collect()[0]
    if won["run_id"] != run.run_id:
        draft.unlink()
        raise RetryError(f"another run has just published {name!r}: run the same command again, or give another name")
    return manifest_of(won)
