"""Helpers of the commands: open a lake for a run, and load the steps that other packages provide.

Imports no stage at module level, so every package can use it.
"""

from collections.abc import Callable
from functools import partial
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


def open_run(lake: str, settings: "Settings", *, create: bool = True, keep: bool = True, lazy: bool = False) -> "Run":
    """Start Spark, open the lake at `lake`, and save the settings in it.

    Args:
        create: whether to create a missing lake.
        keep: whether the command writes. If so, it waits for the lake's write lock, checks the workers of a cluster
            and saves the settings. Commands that only read pass false: they neither wait nor save.
        lazy: whether Spark starts only with the first query, as it always does for commands that only read.

    Raises:
        InputError: the lake is missing and `create` is false, or it cannot be opened.
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
        raise InputError(f"there is no lake at {lake}: create one with `capsfusion ingest` or `capsfusion run`")
    local = prepare(lake)
    if keep:
        one_writer(lake)
    session = partial(get_session, local / "spark.log", lake)
    if keep and on_a_cluster():
        check_workers(session())
    # Commands that only read a lake on this machine start Spark when they need it: some never do.
    opened = open_lake(session if lazy or not keep else session(), lake, create=create)
    if keep:
        remember(lake, settings)
    run = Run(opened)
    run.watchers += watchers(section(settings, "observe", ObserveConfig), lake, run.run_id)
    return run


def gate_step(settings: "Settings") -> "Gate":
    """Return the quality gate, configured by the section `gate`.

    Raises:
        InputError: the section `gate` is invalid.
    """
    gate: Gate = _step("gate")(settings)
    return gate


def training_steps(settings: "Settings") -> "list[Callable[[Run, Manifest], None]]":
    """Return the steps that follow a published snapshot: train on it, and evaluate the model.

    Raises:
        InputError: the section `trainer` is invalid.
    """
    return [_step(name)(settings) for name in ("train", "evaluate")]


def report_step() -> "Callable[[Run, str], str]":
    """Return the function (run, params_hash) -> path that writes the report."""
    report: Callable[[Run, str], str] = _step("report")
    return report


def _step(name: str) -> Any:
    """Load the entry point `name` of the group capsfusion.steps.

    Raises:
        MissingDependencyError: no installed package provides it.
    """
    found = next(iter(entry_points(group="capsfusion.steps", name=name)), None)
    if found is None:
        raise MissingDependencyError(
            f"no installed package provides the step {name!r}: install capsfusion-lake with pip"
        )
    return found.load()
