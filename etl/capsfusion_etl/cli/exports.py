"""`capsfusion export` and `capsfusion apply`: snapshots for other trainers, and the changes of copies."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from capsfusion_etl.cli.context import open_run
from capsfusion_etl.cli.options import names_in, settings_of
from capsfusion_etl.errors import InputError

app = typer.Typer()
_ENGINES = ("auto", "local", "spark")


@app.command()
def export(
    snapshot: Annotated[str, typer.Option(help="LAKE@NAME, or LAKE@latest: the newest that passed its gate.")],
    to: Annotated[str, typer.Option(help="Folder or URL: empty, or with the same export half done, which goes on.")],
    form: Annotated[str, typer.Option("--format", help="webdataset, huggingface, llava, mds, lance or parquet.")],
    columns: Annotated[
        str | None,
        typer.Option(help="More columns, with commas: raw, synthetic, fused, ledger, verdict, url, source, extra."),
    ] = None,
    no_images: Annotated[bool, typer.Option("--no-images", help="Addresses instead of the pictures.")] = False,
    since: Annotated[
        str | None, typer.Option(help="export.json of an earlier export: only what changed since then.")
    ] = None,
    shard_mb: Annotated[int, typer.Option(help="Size of a shard in MB.")] = 256,
    contact: Annotated[str | None, typer.Option(help="Whom to ask for a takedown, for the card.")] = None,
    failed_gate: Annotated[bool, typer.Option("--failed-gate", help="Also a snapshot that its gate refused.")] = False,
    engine: Annotated[str, typer.Option(help="auto (Spark on a cluster), local or spark.")] = "auto",
) -> None:
    """Write a snapshot for open_clip, LLaVA, datasets, MosaicML Streaming or Lance, with a data card."""
    from capsfusion_etl.exports.config import ExportConfig
    from capsfusion_etl.exports.export import export as write
    from capsfusion_etl.exports.output import WORK
    from capsfusion_etl.settings import section
    from capsfusion_etl.snapshots.address import NOT_ASKED, in_lake, open_snapshot
    from capsfusion_etl.spark.session import on_a_cluster
    from capsfusion_etl.stages.publish import PublishConfig
    from capsfusion_etl.storage import as_path

    if engine not in _ENGINES:
        raise InputError(f"--engine: there is no engine {engine!r}; there are {', '.join(_ENGINES)}")
    config = ExportConfig(form, names_in(columns), not no_images, shard_mb, since)
    lake, at, _ = in_lake(snapshot).rpartition("@")
    if not at:
        raise InputError(f"--snapshot wants LAKE@NAME, as in lake@s0001, got {snapshot!r}")
    try:
        manifest = open_snapshot(snapshot, failed_gate=failed_gate, hashes=None)
    except InputError as error:
        begun = "taken down" in str(error) and (as_path(to) / WORK).exists()
        raise InputError(f"{error}; and remove {to}, which has a part of it") if begun else error from None
    if manifest.gate.failures == (NOT_ASKED,):
        raise InputError(
            f"{snapshot} has no manifest, by which takedowns are known: publish a snapshot, and export that"
        )
    settings = settings_of(lake, None, None)
    opened = open_run(lake, settings, create=False, keep=False).lake
    spark = opened.spark if engine == "spark" or (engine == "auto" and on_a_cluster()) else None
    contact = contact or section(settings, "publish", PublishConfig).contact
    record = write(opened, manifest, to, replace(config, contact=contact), spark)
    print(f"{record.rows:,} pairs in {len(record.shards)} shards; {to.rstrip('/')}/README.md is the card")


@app.command()
def apply(
    changes: Annotated[Path, typer.Argument(help="Folder of an export of changes (`capsfusion export --since`).")],
    to: Annotated[Path, typer.Option(help="Folder of a copy of the earlier export.")],
) -> None:
    """Bring a copy of an export up to date: remove what was taken down or changed, add what is new."""
    from capsfusion_etl.exports.changes import apply as bring

    record = bring(changes, to)
    print(f"{to} has {record.rows:,} pairs now: those of snapshot {record.snapshot['name']}")
