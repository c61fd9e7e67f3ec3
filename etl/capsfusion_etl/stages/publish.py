"""Publish stage: write the pairs that passed every stage to `training_pairs`, and a gated, named snapshot of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from deltalake import DeltaTable
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.cards.snapshot import write_cards
from capsfusion_etl.console import say
from capsfusion_etl.errors import GateRefusedError, InputError, RetryError
from capsfusion_etl.ids import check_name
from capsfusion_etl.lake.image_files import image_bytes
from capsfusion_etl.lake.opinions import newest_opinions
from capsfusion_etl.lake.rejects import surviving
from capsfusion_etl.lake.run import Run
from capsfusion_etl.snapshots.catalog import draft_of, manifest_of, recorded
from capsfusion_etl.snapshots.manifest import GateResult, Manifest, describe_files, files_of
from capsfusion_etl.spark.persist import persisted
from capsfusion_etl.spark.sampling import position
from capsfusion_etl.tables import GATED, TRAINING_PAIRS

# (run, table name -> rows to check, params_hash of the rows: a gate may cache its result under it)
Gate = Callable[[Run, dict[str, DataFrame], str], GateResult]
_COMPARE = ("pair_id", "image_id", "caption", "caption_from", "strategy", "split")


@dataclass(frozen=True, slots=True)
class PublishConfig:
    """Settings of publishing.

    Attributes:
        name: name of the snapshot; null: s0001, s0002...
        strategy: the strategy whose captions are published.
        held_out: share of the images that is kept from training, 0 to 1.
        row_group: rows in a Parquet row group; few, so that a trainer reads only what it needs.
        contact: whom to ask for a takedown, an e-mail address or a URL, for the snapshot's card.
    """

    name: str | None = None
    strategy: str = "fused"
    held_out: float = 0.05
    row_group: int = 128
    contact: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name, "snapshot")


def candidate(run: Run, params_hash: str, config: PublishConfig) -> DataFrame:
    """Return the rows of `training_pairs` that would be published, with `url`, but without the images.

    They come from the fused captions of `params_hash`.
    """
    lake = run.lake
    images = lake.read("images").where("error IS NULL").select("url", "image_id")
    fused = lake.read("fused_captions").where((F.col("params_hash") == params_hash) & F.col("caption").isNotNull())
    fused = fused.select("pair_id", "caption", "caption_from", "strategy")
    rows = surviving(lake, before="publish").join(fused, "pair_id").join(images, "url", "left")
    # Split by image, so that no image is on both sides.
    split = F.when(position(F.coalesce("image_id", "pair_id")) < config.held_out, "held_out").otherwise("train")
    return rows.select("url", *_COMPARE[:-1], split.alias("split"))


def frames(run: Run, params_hash: str, config: PublishConfig) -> dict[str, DataFrame]:
    """Return the tables that the gate checks; `training_pairs` is the candidate, not the published table."""
    lake = run.lake
    fused = lake.read("fused_captions").where(F.col("params_hash") == params_hash)
    fused = fused.join(surviving(lake, before="fuse").select("pair_id"), "pair_id", "left_semi")
    tables = {name: lake.read(name) for name in ("pairs", "images", "rejects", "synthetic_captions")}
    # Rejects of taken-down pairs have no row in `pairs` any more.
    tables["rejects"] = tables["rejects"].where("NOT (stage = 'ingest' AND reason = 'taken_down')")
    tables["alarms"] = lake.read("alarms").where(F.col("params_hash") == params_hash)
    tables["opinions"] = newest_opinions(lake, fused)
    return {**tables, "fused_captions": fused, "training_pairs": candidate(run, params_hash, config)}


def gated(run: Run, params_hash: str, config: PublishConfig, gate: Gate) -> Manifest:
    """Run the gate, and publish exactly the table versions that it checked.

    Raises:
        GateRefusedError: the gate did not pass; nothing was published.
        InputError: see `publish`.
    """
    run = replace(run, lake=run.lake.pinned(*GATED))
    return publish(run, params_hash, config, validate(run, params_hash, config, gate))


def validate(run: Run, params_hash: str, config: PublishConfig, gate: Gate) -> GateResult:
    """Run the gate, print its failures and warnings, and return its result; a refusal does not raise."""
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
    """Write `training_pairs` and a snapshot of it; return its manifest, or the existing one if nothing changed.

    Raises:
        GateRefusedError: the gate did not pass; nothing was written.
        InputError: no pair passed every stage, or a snapshot of this name exists with other data.
        RetryError: another run published the same name at the same time.
    """
    if not result.passed:
        raise GateRefusedError(f"not published: {'; '.join(result.failures)}. Report: {result.report}")
    lake = run.lake
    with run.stage("publish") as counts, persisted(candidate(run, params_hash, config)) as rows:
        counts.rows_in = int(rows.count())  # Spark Connect 3.5 counts in NumPy integers
        if not counts.rows_in:
            raise InputError("nothing to publish: no pair passed every stage; see `capsfusion report` for the reasons")
        mine = {"column": "strategy", "value": config.strategy}
        changed = lake.differs("training_pairs", rows, **mine, compare=_COMPARE)
        if changed:
            images = image_bytes(lake).select("url", F.col("bytes").alias("image"))
            whole = rows.join(images, "url", "left").repartition(max(1, counts.rows_in // 100_000))
            ordered = whole.sortWithinPartitions("strategy", "split", "pair_id")
            lake.replace("training_pairs", ordered, **mine, row_group=config.row_group)
        version = lake.version("training_pairs")
        counts.rows_out = counts.rows_in if changed else 0
        same = _same(run, config, version)
        if same is not None:
            counts.note = f"snapshot {same.name} is up to date"
            write_cards(lake, same, config.contact)
            return same
        manifest = _snapshot(run, config, version, counts.rows_in, result)
        counts.note = f"snapshot {manifest.name}, card {write_cards(lake, manifest, config.contact)}"
        return manifest


def _same(run: Run, config: PublishConfig, version: int) -> Manifest | None:
    """Return the newest snapshot with the name and strategy, if it has the files that the table has now.

    The version may be another one: publishing other strategies makes versions, too.
    """
    lake = run.lake
    known = [r for r in recorded(lake) if r["strategy"] == config.strategy and config.name in (None, r["name"])]
    if not known:
        return None
    manifest = manifest_of(lake, known[-1])
    now = files_of(DeltaTable(lake.table_folder("training_pairs"), version=version), config.strategy)
    return manifest if [(file.split, file.path) for file in manifest.files] == now else None


def _snapshot(run: Run, config: PublishConfig, version: int, rows: int, result: GateResult) -> Manifest:
    lake, name = run.lake, config.name
    taken = {r["name"] for r in lake.rows("snapshots")}
    if name in taken:
        raise InputError(f"the snapshot {name!r} exists with other data: choose another name")
    name = name or next(n for n in (f"s{i:04d}" for i in range(1, 10**6)) if n not in taken)
    location = lake.table_folder("training_pairs")
    table = DeltaTable(location, version=version)
    manifest = Manifest(
        name=name,
        table=location,
        table_id=str(table.metadata().id),
        version=version,
        strategy=config.strategy,
        rows=rows,
        columns=tuple(c for c, _, _ in TRAINING_PAIRS.columns),
        files=describe_files(location, table, config.strategy),
        gate=result,
    )
    path = lake.folder / "snapshots" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    # A draft named after the run, until the row in `snapshots` shows that this run won the name.
    draft = draft_of(path, run.run_id)
    draft.write_text(manifest.text(), encoding="utf-8")
    row = (
        name, config.strategy, manifest.table_id, version, manifest.sha256(), str(path), len(manifest.files),
        sum(f.size for f in manifest.files), rows, "passed", result.report, "published", datetime.now(UTC), run.run_id,
    )  # fmt: skip
    lake.insert_few("snapshots", [row])
    won = lake.rows("snapshots", "name", among=(name,))[0]
    if won["run_id"] != run.run_id:
        draft.unlink()
        raise RetryError(f"another run has just published {name!r}: run the same command again, or choose another name")
    return manifest_of(lake, won)
