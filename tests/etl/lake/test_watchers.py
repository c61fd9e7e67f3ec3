"""Test the watchers of a run: table `runs`, Prometheus metrics, OpenLineage events and JSON logs."""

import json
from pathlib import Path

import pytest
from capsfusion_etl import console
from capsfusion_etl.errors import InputError
from capsfusion_etl.lake.run import Run
from capsfusion_etl.lake.watchers import LINEAGE, ObserveConfig, watchers
from capsfusion_etl.tables import STAGES, TABLES
from prometheus_client.parser import text_string_to_metric_families


@pytest.fixture(autouse=True)
def plain_lines_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_as_json", {})


def test_a_stage_is_a_row_a_metric_a_lineage_event_and_an_object_in_the_log(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(tmp_path / "lineage"))
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__APPEND", "true")
    config = ObserveConfig(metrics=str(tmp_path / "prom"), log="json", openlineage=True)
    run.watchers += watchers(config, run.lake.root, run.run_id)
    with run.stage("fuse") as counts:
        counts.rows_in, counts.rows_out, counts.rows_rejected, counts.tokens, counts.cost_usd = 10, 7, 3, 900, 0.25
    with pytest.raises(InputError, match="no such file"), run.stage("publish"):
        raise InputError("no such file")

    rows = {row["stage"]: row for row in run.lake.read("runs").collect()}
    assert (rows["fuse"]["tokens"], rows["fuse"]["cost_usd"], rows["fuse"]["status"]) == (900, 0.25, "ok")
    seconds = (rows["fuse"]["finished_at"] - rows["fuse"]["started_at"]).total_seconds()
    assert rows["fuse"]["rows_per_s"] == pytest.approx(10 / seconds, rel=0.01)
    assert (rows["publish"]["status"], rows["publish"]["error"]) == ("failed", "no such file")

    found = {}
    for file in (tmp_path / "prom").glob("capsfusion_*.prom"):
        for family in text_string_to_metric_families(file.read_text()):
            for sample in family.samples:
                assert sample.labels["lake"] == run.lake.root
                found[sample.labels["stage"], sample.name] = sample.value
    assert found["fuse", "capsfusion_stage_rows_out"] == 7
    assert found["fuse", "capsfusion_stage_cost_usd"] == 0.25
    assert (found["fuse", "capsfusion_stage_ok"], found["publish", "capsfusion_stage_ok"]) == (1, 0)

    events = [json.loads(line) for line in (tmp_path / "lineage").read_text().splitlines()]
    assert [event["eventType"] for event in events] == ["START", "COMPLETE", "START", "FAIL"]
    assert events[0]["run"]["runId"] == events[1]["run"]["runId"] != events[2]["run"]["runId"]
    written = events[1]["outputs"][0]
    assert (written["name"], written["namespace"]) == ("fused_captions", run.lake.root)
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == 7
    assert events[3]["run"]["facets"]["errorMessage"]["message"] == "no such file"

    [line] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["run_id"], line["stage"], line["rows_in"], line["tokens"]) == (run.run_id, "fuse", 10, 900)
    assert line["message"].startswith("fuse 10 in, 7 new, 3 rejected")


def test_who_watches_and_fails_stops_no_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(_: object) -> None:
        raise ConnectionError("nobody listens")

    run.watchers.append(broken)
    with run.stage("filter"):
        pass
    assert capsys.readouterr().err.count("not told of filter: ConnectionError: nobody listens") == 2
    assert run.lake.read("runs").count() == 1


def test_lineage_names_every_stage_and_only_tables_that_there_are() -> None:
    assert set(LINEAGE) >= set(STAGES)
    assert {name for sides in LINEAGE.values() for side in sides for name in side} <= set(TABLES)
