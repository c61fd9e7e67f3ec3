"""Watchers of runs, in addition to the table `runs`: Prometheus text files, OpenLineage events, JSON logs.

They do not use a Spark listener, so they also work on Spark Connect.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from capsfusion_etl.console import log_as_json
from capsfusion_etl.errors import MissingDependencyError
from capsfusion_etl.lake.run import StageRecord, Watcher

if TYPE_CHECKING:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import RunFacet

_PRODUCER = "urn:capsfusion-lake"
# stage -> (tables that it reads, tables that it writes)
LINEAGE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ingest": ((), ("pairs", "images", "rejects")),
    "fetch": (("pairs", "rejects"), ("images", "rejects")),
    "filter": (("pairs", "images", "rejects"), ("rejects",)),
    "dedup": (("pairs", "images", "rejects"), ("sketches", "near_edges", "near_clusters", "rejects")),
    "caption": (("pairs", "images", "rejects"), ("synthetic_captions", "spend", "rejects")),
    "fuse": (("pairs", "synthetic_captions", "rejects"), ("fused_captions", "spend", "alarms", "rejects")),
    "opinion": (("fused_captions",), ("opinions", "spend")),
    "validate": (("pairs", "images", "fused_captions", "rejects"), ("quality_results",)),
    "publish": (("pairs", "images", "fused_captions", "rejects"), ("training_pairs", "snapshots")),
}


@dataclass(frozen=True, slots=True)
class ObserveConfig:
    """Where the progress of runs is reported.

    Attributes:
        metrics: a folder for Prometheus text files, one for each stage, rewritten when the stage ends (node_exporter's
            --collector.textfile.directory); null means none.
        log: "text", or "json" for one JSON object per line with time, run_id, lake and message.
        openlineage: whether to send events with openlineage-python, configured by OPENLINEAGE_URL or its own file.
    """

    metrics: str | None = None
    log: Literal["text", "json"] = "text"
    openlineage: bool = False


def watchers(config: ObserveConfig, lake: str, run_id: str) -> list[Watcher]:
    """Return the watchers of a run; also switch messages to JSON if `config.log` says so.

    Raises:
        MissingDependencyError: the library that a watcher needs is not installed.
    """
    found: list[Watcher] = []
    if config.log == "json":
        log_as_json(run_id=run_id, lake=lake)
    try:
        if config.metrics is not None:
            found.append(_prometheus(Path(config.metrics), lake))
        if config.openlineage:
            found.append(_openlineage(lake))
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"{error.name} is not installed: pip install 'capsfusion-lake[observe]'") from None
    return found


def _prometheus(folder: Path, lake: str) -> Watcher:
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    words = {
        "rows_in": "rows processed", "rows_out": "rows written", "rows_rejected": "rows rejected",
        "rows_per_s": "rows processed per second", "tokens": "tokens used by engines", "cost_usd": "cost in US dollars",
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)

    def watch(stage: StageRecord) -> None:
        if stage.finished_at is None:
            return
        registry = CollectorRegistry()

        def put(name: str, what: str, value: float) -> None:
            text = f"Last run of the stage: {what}"
            gauge = Gauge(f"capsfusion_stage_{name}", text, ["lake", "stage"], registry=registry)
            gauge.labels(lake, stage.stage).set(value)

        for name, what in words.items():
            put(name, what, getattr(stage, name))
        put("seconds", "duration in seconds", stage.seconds)
        put("finished_timestamp_seconds", "end time in Unix seconds", stage.finished_at.timestamp())
        put("ok", "1 if it succeeded, else 0", float(stage.status == "ok"))
        write_to_textfile(str(folder / f"capsfusion_{stage.stage}.prom"), registry)  # writes atomically

    return watch


def _openlineage(lake: str) -> Watcher:
    from openlineage.client import OpenLineageClient, event_v2
    from openlineage.client.facet_v2 import error_message_run, output_statistics_output_dataset

    client = OpenLineageClient()

    def outputs(stage: StageRecord, tables: tuple[str, ...]) -> "list[OutputDataset]":
        rows = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=stage.rows_out)
        found = [event_v2.OutputDataset(lake, name) for name in tables]
        if found and stage.finished_at is not None:
            found[0].outputFacets = {"outputStatistics": rows}
        return found

    def watch(stage: StageRecord) -> None:
        kind = {"started": event_v2.RunState.START, "ok": event_v2.RunState.COMPLETE}
        reads, writes = LINEAGE.get(stage.stage, ((), ()))
        facets: dict[str, RunFacet] = {}
        if stage.error is not None:
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(stage.error, "python")
        client.emit(
            event_v2.RunEvent(
                eventType=kind.get(stage.status, event_v2.RunState.FAIL),
                eventTime=(stage.finished_at or stage.started_at).astimezone(UTC).isoformat(),
                run=event_v2.Run(str(uuid.uuid5(uuid.NAMESPACE_URL, f"{stage.run_id}/{stage.stage}")), facets),
                job=event_v2.Job("capsfusion", f"{lake}/{stage.stage}"),
                inputs=[event_v2.InputDataset(lake, name) for name in reads],
                outputs=outputs(stage, writes),
                producer=_PRODUCER,
            )
        )

    return watch
