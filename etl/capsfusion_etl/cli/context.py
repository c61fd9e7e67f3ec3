"""What every command shares: options, settings, an open lake. Imports no job, so that every package may use it."""

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsfusion_etl.errors import InputError, MissingDependencyError
from capsfusion_etl.storage import is_remote

if TYPE_CHECKING:
    from capsfusion_etl.lake.run import Run
    from capsfusion_etl.settings import Settings
    from capsfusion_etl.snapshots.manifest import Manifest
    from capsfusion_etl.stages.publish import Gate


def open_run(lake: str, settings: "Settings", *, create: bool = True, keep: bool = True) -> "Run":
    """Start Spark, open the lake, and let it remember the settings.

    Args:
        keep: false for commands that only read: they wait for nobody, and leave nothing.
    """
    from capsfusion_etl.lake.create import open_lake
    from capsfusion_etl.lake.location import is_catalog, prepare
    from capsfusion_etl.lake.lock import one_writer
    from capsfusion_etl.lake.run import Run
    from capsfusion_etl.lake.saved_settings import remember
    from capsfusion_etl.lake.watchers import ObserveConfig, watchers
    from capsfusion_etl.settings import section
    from capsfusion_etl.spark.preflight import check_workers
    from capsfusion_etl.spark.session import get_session, on_a_cluster

    if not (create or is_remote(lake) or is_catalog(lake) or Path(lake, "pairs").is_dir()):
        raise InputError(f"there is no lake at {lake}: `capsfusion ingest` or `capsfusion run` makes one")
    local = prepare(lake)
    if keep:
        one_writer(lake)
    spark = get_session(local / "spark.log", lake)
    if keep and on_a_cluster():
        check_workers(spark)
    opened = open_lake(spark, lake, create=create)
    if keep:
        remember(lake, settings)
    run = Run(opened)
    run.watchers += watchers(section(settings, "observe", ObserveConfig), lake, run.run_id)
    return run


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
