"""What every command shares: options, settings, an open lake. Imports no job, so that every package may use it."""

import atexit
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from capsfusion_etl.console import say
from capsfusion_etl.errors import InputError, MissingDependencyError
from capsfusion_etl.stores import is_remote

if TYPE_CHECKING:
    from capsfusion_etl.manifest import Manifest
    from capsfusion_etl.publish import Gate
    from capsfusion_etl.runlog import Run
    from capsfusion_etl.settings import Settings

_held: dict[str, Any] = {}  # lake -> its lock, for as long as this process lives

LakeOption = Annotated[str, typer.Option("--lake", help="Folder of the tables, or catalog.schema.")]
ConfigOption = Annotated[str | None, typer.Option("--config", help="YAML file with the settings.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="section.key=value; wins over the file.")]
PairsOption = Annotated[str | None, typer.Option("--pairs", help="parquet, CSV, TSV, JSONL or Delta: file or folder.")]
ColumnOption = Annotated[
    list[str] | None, typer.Option("--column", help="raw_caption=TEXT, url=..., synthetic_caption=...")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Take the first N rows only.")]
CaptionerOption = Annotated[str | None, typer.Option("--captioner", help="Captioning engine, by name.")]
FuserOption = Annotated[str | None, typer.Option("--fuser", help="Fusion engine, by name.")]
MaxUsdOption = Annotated[float | None, typer.Option("--max-usd", min=0, help="Hard cap in dollars.")]
MaxTokensOption = Annotated[int | None, typer.Option("--max-tokens", min=0, help="Hard cap in tokens.")]
MaxRowsOption = Annotated[int | None, typer.Option("--max-rows", min=0, help="Hard cap in rows that engines settle.")]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of the snapshot; by default s0001, s0002...")]


def columns_of(columns: list[str] | None) -> dict[str, str] | None:
    """Our name -> theirs, of `--column ours=theirs`.

    Raises:
        InputError: it is none.
    """
    pairs = [c.partition("=") for c in columns or ()]
    for ours, equals, theirs in pairs:
        if not (ours and equals and theirs):
            raise InputError(f"--column wants ours=theirs, as in raw_caption=TEXT, got {ours!r}")
    return {ours: theirs for ours, _, theirs in pairs} or None


def settings_of(
    lake: str, config: str | None, sets: list[str] | None, options: Mapping[str, object] | None = None
) -> "Settings":
    """Merge what the lake remembers of earlier commands, the file, `--set` and the options; the last one wins.

    Args:
        options: `section.key` -> value of an option of the command; None where it was not given.
    """
    from capsfusion_etl import settings
    from capsfusion_etl.memory import recall

    merged = recall(lake)
    for name, values in settings.load(config, sets or ()).items():
        for key, value in values.items():
            settings.put(merged, name, key, value)
    given = {dotted: value for dotted, value in (options or {}).items() if value is not None}
    if "source.pairs" in given:
        merged["source"] = {}  # another source: the columns and the limit of the last one are not its own
    for dotted, value in given.items():
        name, _, key = dotted.partition(".")
        settings.put(merged, name, key, value)
    return merged


def open_run(lake: str, settings: "Settings", *, create: bool = True, keep: bool = True) -> "Run":
    """Start Spark, open the lake, and let it remember the settings.

    Args:
        keep: false for commands that only read: they wait for nobody, and leave nothing.
    """
    from capsfusion_etl.lake import open_lake
    from capsfusion_etl.memory import is_catalog, prepare, remember
    from capsfusion_etl.observe import ObserveConfig, watchers
    from capsfusion_etl.runlog import Run
    from capsfusion_etl.session import get_session, on_a_cluster
    from capsfusion_etl.settings import section
    from capsfusion_etl.workers import check_workers

    if not (create or is_remote(lake) or is_catalog(lake) or Path(lake, "pairs").is_dir()):
        raise InputError(f"there is no lake at {lake}: `capsfusion ingest` or `capsfusion run` makes one")
    local = prepare(lake)
    if keep:
        _one_at_a_time(lake)
    spark = get_session(local / "spark.log", lake)
    if keep and on_a_cluster():
        check_workers(spark)
    opened = open_lake(spark, lake, create=create)
    if keep:
        remember(lake, settings)
    run = Run(opened)
    run.watchers += watchers(section(settings, "observe", ObserveConfig), lake, run.run_id)
    return run


def _one_at_a_time(lake: str) -> None:
    """Wait until no other process writes to this lake; the lock ends with this process, however it ends.

    In a folder a lock of the file system; elsewhere, from whatever machine, a file that says now and then that its
    writer lives. Writers that are not of this project are Delta's matter (docs/running.md).
    """
    from filelock import FileLock, Timeout

    from capsfusion_etl.memory import folder_of, is_catalog
    from capsfusion_etl.turns import Turn

    def waiting() -> None:
        say("capsfusion: another run works on this lake: waiting for it to end")

    folder = str(folder_of(lake))
    if folder in _held:
        return
    if is_remote(folder) or is_catalog(lake):  # a catalog's may be mounted: no locks there
        _held[folder] = turn = Turn(f"{folder}/turns", waiting=waiting)
        atexit.register(turn.end)
        return
    lock = FileLock(f"{folder}/run.lock", is_singleton=True, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    _held[folder] = lock


def gate_step(settings: "Settings") -> "Gate":
    """The quality gate with its settings.

    Raises:
        InputError: the section `gate` is wrong.
    """
    gate: Gate = _step("gate")(settings)
    return gate


def training_steps(settings: "Settings") -> "list[Callable[[Run, Manifest], None]]":
    """What follows a published snapshot: training on it, and evaluating the model.

    Raises:
        InputError: the section `trainer` is wrong.
    """
    return [_step(name)(settings) for name in ("train", "evaluate")]


def report_step() -> "Callable[[Run, str], str]":
    """The function (run, params_hash) -> path that writes the report."""
    report: Callable[[Run, str], str] = _step("report")
    return report


def _step(name: str) -> Any:
    """What another package offers under `name` in the entry point group capsfusion.steps."""
    found = next(iter(entry_points(group="capsfusion.steps", name=name)), None)
    if found is None:
        raise MissingDependencyError(f"no package offers the step {name!r}: install capsfusion-lake itself, not a copy")
    return found.load()
