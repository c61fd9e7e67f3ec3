"""Takedown: remove rows from every table, mark what was made with them, and block their return."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pyarrow import fs
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.cards.snapshot import paths_of
from capsfusion_etl.errors import InputError
from capsfusion_etl.lake.blocklist import blocked_pairs, redirected, unmatched, url_hash, value_of
from capsfusion_etl.lake.image_files import path_from
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.lake.rejects import as_rejects, because
from capsfusion_etl.lake.run import Run
from capsfusion_etl.snapshots import holds
from capsfusion_etl.snapshots.catalog import TAKEN_DOWN, manifest_of, recorded, rows_of, set_state
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import filesystem_of, remove
from capsfusion_etl.tables import TAKEDOWNS

Request = tuple[str, str]  # kind and value, as `takedowns` stores them

DERIVED = (
    "training_pairs", "opinions", "fused_captions", "synthetic_captions", "sketches", "near_clusters", "near_edges",
)  # fmt: skip
# Tables with captions, images or URLs; the others contain only ids and figures.
_SHOWING = (
    "pairs", "images", "rejects", "synthetic_captions", "fused_captions", "opinions", "training_pairs",
    "quality_results", "alarms",
)  # fmt: skip
_SHOWN = ("quality", "gx", "gates")  # folders with examples of rows; the next gate writes them again


@dataclass(frozen=True, slots=True)
class Proof:
    """What a takedown did.

    Attributes:
        pairs: number of pairs removed.
        tables: table -> number of `rows` removed and of `files_rewritten`.
        snapshots: names of the snapshots that contain pairs of this or an earlier takedown.
        training_runs: folders of the models trained on those snapshots.
        purged: whether old versions were removed too, so that no file of the lake contains the pairs.
        unmatched: requests, as "kind value", that name nothing in the lake; they still block what comes later.
    """

    pairs: int = 0
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    snapshots: list[str] = field(default_factory=list)
    training_runs: list[str] = field(default_factory=list)
    purged: bool = False
    unmatched: list[str] = field(default_factory=list)


def take_down(run: Run, requests: Iterable[tuple[str, str]], *, purge: bool = False) -> Proof:
    """Remove the pairs that `requests` name and block their return. Idempotent, also after a crash.

    Args:
        run: the run that is recorded.
        requests: (kind, value), where the kind is one of `blocklist.KINDS`.
        purge: whether to remove also the old versions of the tables, the reports, and the holds of the snapshots that
            contain removed pairs. This breaks those snapshots.

    Returns:
        What was removed; `takedowns` stores it with the requests.

    Raises:
        InputError: `requests` is empty, or a value is.
    """
    lake, asked = run.lake, requested(requests)
    _note(run, asked)
    images = [value for kind, value in asked if kind == "image_id"]
    # Block the URLs that lead to what is taken down, too: by a redirect, or because they serve the same bytes.
    ends = redirected(lake).collect()
    same = (
        lake.read("images").where(F.col("image_id").isin(images)).select("url", "image_id").collect() if images else []
    )
    named = {(row["kind"], row["value"]) for row in ends} | {("image_id", row["image_id"]) for row in same}
    missed = [f"{kind} {value}" for kind, value in unmatched(lake, set(asked) - named)]
    _note(run, [("url", url_hash(row["url"])) for row in (*ends, *same)])
    with run.stage("takedown") as counts:
        rejects = _reject(run)
        told = lake.read("rejects").where("stage = 'ingest' AND reason = 'taken_down'").select("pair_id")
        affected = lake.read("pairs").select("pair_id", "url").join(told, "pair_id")
        snapshots = _snapshots_with(run, told)  # of earlier requests, too: a purge covers them all
        runs = _mark(run, snapshots)
        files = _files_of(run, affected)
        tables = {"rejects": rejects} | {table: _remove(run, table, told) for table in DERIVED}
        tables["images"] = _remove_images(run, affected, images)
        _delete_files(run, files)
        tables["pairs"] = _remove(run, "pairs", told)
        if purge:
            _purge(run, snapshots)
        counts.rows_in = counts.rows_rejected = tables["pairs"]["rows"]
    proof = Proof(tables["pairs"]["rows"], tables, [m.name for m in snapshots], runs, purge, missed)
    _settled(run, asked, proof)
    return proof


def requested(given: Iterable[tuple[str, str]]) -> list[Request]:
    """Return requests as they are stored (see `value_of`).

    Raises:
        InputError: there are none, or a value is empty.
    """
    asked = [(kind, value_of(kind, value)) for kind, value in given]
    if not asked:
        raise InputError("say what to take down: --url, --domain, --image-hash, --pair-id or --file")
    return asked


def _note(run: Run, asked: list[tuple[str, str]]) -> None:
    now = datetime.now(UTC)
    rows = [(kind, value, now, None, None) for kind, value in sorted(set(asked))]
    if rows:
        run.lake.insert_new("takedowns", run.lake.spark.createDataFrame(rows, TAKEDOWNS.schema()))


def _settled(run: Run, asked: list[tuple[str, str]], proof: Proof) -> None:
    keys = run.lake.spark.createDataFrame(sorted(set(asked)), "kind string, value string")
    now, text = F.lit(datetime.now(UTC)), F.lit(json.dumps(asdict(proof)))
    there = run.lake.read("takedowns").join(keys, ["kind", "value"])
    # Keep the first proof if this takedown is a repeat, which removes nothing.
    run.lake.update("takedowns", there.withColumn("applied_at", F.coalesce("applied_at", now)).withColumn(
        "proof", F.when(F.lit(proof.pairs > 0) | F.col("proof").isNull(), text).otherwise(F.col("proof"))
    ))  # fmt: skip


def _reject(run: Run) -> dict[str, int]:
    """Replace the rejects of each pair that a request names by one `taken_down`, which the later steps select by."""
    lake = run.lake
    found = blocked_pairs(lake, lake.read("pairs").select("pair_id", "url"))
    removed = _counted(run, "rejects", found.select("pair_id"))
    lake.insert_new("rejects", as_rejects(run, "ingest", because("taken_down", found, F.col("kind"))))
    return removed


def _remove(run: Run, table: str, ids: DataFrame) -> dict[str, int]:
    if table != "near_edges":
        return _counted(run, table, ids)
    both = [_counted(run, table, ids, on=f"t.{end} = s.pair_id") for end in ("a", "b")]
    return {name: both[0][name] + both[1][name] for name in both[0]}


def _remove_images(run: Run, affected: DataFrame, image_ids: list[str]) -> dict[str, int]:
    urls = affected.select("url").unionByName(
        run.lake.read("images").where(F.col("image_id").isin(image_ids)).select("url")
    )
    # A URL that other pairs use keeps its image.
    shared = run.lake.read("pairs").join(affected.select("pair_id"), "pair_id", "left_anti").select("url")
    return _counted(run, "images", urls.distinct().join(shared, "url", "left_anti"), on="t.url = s.url")


def _counted(run: Run, table: str, rows: DataFrame, on: str = "t.pair_id = s.pair_id") -> dict[str, int]:
    removed = run.lake.delete(table, rows, on=on)
    files = run.lake.metrics(table).get("numTargetFilesRemoved", 0) if removed else 0
    return {"rows": removed, "files_rewritten": files}


def _snapshots_with(run: Run, ids: DataFrame) -> list[Manifest]:
    """Return the snapshots that contain one of these pairs, and those whose files are unreadable."""
    found = []
    for row in recorded(run.lake):
        manifest = manifest_of(run.lake, row)
        try:
            clean = rows_of(run, manifest).join(ids, "pair_id", "left_semi").isEmpty()
        except PySparkException:
            clean = False
        if not clean:
            found.append(manifest)
    return found


def _mark(run: Run, snapshots: list[Manifest]) -> list[str]:
    """Mark each snapshot, and each training run on it that is stored with the lake or was evaluated, as taken_down.

    Returns:
        The folders of the training runs.
    """
    lake, runs = run.lake, set[str]()
    for manifest in snapshots:
        set_state(run, manifest.name, TAKEN_DOWN)
        text = json.dumps({"snapshot": manifest.name, "at": datetime.now(UTC).isoformat(timespec="seconds")}) + "\n"
        (lake.folder / "snapshots" / f"{manifest.name}.{TAKEN_DOWN}").write_text(text, encoding="utf-8")
        evaluated = lake.read("evaluations").where(F.col("manifest_sha256") == manifest.sha256())
        models = [row["model"] for row in evaluated.select("model").distinct().collect()]
        trained = [home / "checkpoints" / manifest.name for home in homes(lake)]
        for folder in (*map(Path, models), *trained):
            if folder.is_dir():
                (folder / f"{TAKEN_DOWN}.json").write_text(text, encoding="utf-8")
        runs |= {*models, *(str(folder) for folder in trained if folder.is_dir())}
    return sorted(runs)


def homes(lake: Lake) -> list[Path]:
    """Return the folders in which a lake's models may be: its own, and the one on this machine if that is another."""
    return list({str(home): home for home in (lake.folder, lake.local_folder)}.values())


def _files_of(run: Run, affected: DataFrame) -> list[str]:
    paths = (
        run.lake.read("images").where("path IS NOT NULL").join(affected.select("url").distinct(), "url", "left_semi")
    )
    return [row["path"] for row in paths.select(path_from(run.lake).alias("path")).collect()]


def _delete_files(run: Run, files: list[str]) -> None:
    """Delete image files, except those that remaining rows use."""
    if not files:
        return
    there = run.lake.read("images").where("path IS NOT NULL").select(path_from(run.lake).alias("path"))
    others = there.where(F.col("path").isin(files)).collect()
    for path in set(files) - {row["path"] for row in others}:
        _delete_file(path)


def _purge(run: Run, snapshots: list[Manifest]) -> None:
    """Remove what still shows rows outside of the newest table versions: holds, reports, examples, old files."""
    lake = run.lake
    for manifest in snapshots:
        for holder in holds.holders(manifest):
            holds.release(manifest, holder)
        for card in paths_of(lake, manifest):
            card.unlink(missing_ok=True)
    for name in _SHOWN:
        for folder in (lake.folder, lake.local_folder):
            remove(folder / name, within=folder)
    for report in (lake.folder / "report.html", lake.folder.parent / "report.html"):
        report.unlink(missing_ok=True)
    lake.spark.sql(f"UPDATE {lake.ref('quality_results')} SET observed = NULL WHERE observed IS NOT NULL")
    lake.spark.sql(f"UPDATE {lake.ref('alarms')} SET detail = 'purged' WHERE detail IS NOT NULL")
    with _no_retention(run):
        for table in _SHOWING:
            if lake.properties(table).get("delta.enableDeletionVectors") == "true":
                lake.spark.sql(f"REORG TABLE {lake.ref(table)} APPLY (PURGE)").collect()
            lake.spark.sql(f"VACUUM {lake.ref(table)} RETAIN 0 HOURS").collect()


def _delete_file(path: str) -> None:
    files, within = filesystem_of(path)
    if files.get_file_info(within).type != fs.FileType.NotFound:
        files.delete_file(within)


@contextmanager
def _no_retention(run: Run) -> Iterator[None]:
    """Let VACUUM remove unused files of any age."""
    key = "spark.databricks.delta.retentionDurationCheck.enabled"
    run.lake.spark.conf.set(key, "false")
    try:
        yield
    finally:
        run.lake.spark.conf.unset(key)
