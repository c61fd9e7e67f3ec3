"""Test what analysts use: snapshots, and the report in a browser."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from capsfusion_etl.errors import InputError, RetryError, explain
from capsfusion_etl.queries.embedded_sql import NotHereError
from capsfusion_etl.snapshots.manifest import GateResult

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Cli = Callable[..., tuple[int, str, str]]
PASSED = GateResult(True, 1, (), "report")


def test_a_snapshot_that_is_held_outlives_every_vacuum(lake: Path, capsfusion: Cli, spark: "SparkSession") -> None:
    from deltalake import DeltaTable

    assert capsfusion("publish", "one", "--lake", lake)[0] == 0
    code, out, err = capsfusion("publish", "two", "--lake", lake, "--set", "publish.held_out=0.6")
    assert (code, out.strip()) == (0, "two"), err
    assert capsfusion("snapshots", "hold", "one", "--lake", lake)[0] == 0
    table = lake / "training_pairs"
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    spark.sql(f"VACUUM delta.`{table}` RETAIN 0 HOURS")
    spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    DeltaTable(table).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert capsfusion("snapshots", "verify", "one", "--lake", lake)[0] == 0
    code, out, _ = capsfusion("snapshots", "diff", "one", "two", "--lake", lake)
    assert (code, out.split()[:6]) == (0, ["added", "0", "removed", "0", "changed", "0"])
    assert "held" in capsfusion("snapshots", "list", "--lake", lake)[1]
    assert capsfusion("snapshots", "release", "one", "--lake", lake)[0] == 0
    code, _, err = capsfusion("snapshots", "verify", "one", "--lake", lake)
    assert code == 2
    assert "snapshot one is broken: strategy=fused/" in err
    assert "is gone: was the table vacuumed?" in err
    files = json.loads(capsfusion("snapshots", "show", "one", "--lake", lake)[1])["files"]
    assert f"broken: {len(files)} files are gone" in capsfusion("snapshots", "list", "--lake", lake)[1]
    code, _, err = capsfusion("snapshots", "hold", "one", "--lake", lake)
    assert code == 2
    assert "cannot be held any more" in err
    assert json.loads(capsfusion("snapshots", "show", "two", "--lake", lake)[1])["gate"]["passed"]
    assert (
        "there is no snapshot three; there are: two, one"
        in capsfusion("snapshots", "verify", "three", "--lake", lake)[2]
    )


@pytest.mark.parametrize("name", ["..", ".", "../..", "bob's", "a/b"])
def test_no_name_of_a_snapshot_reaches_a_file_or_sql(lake: Path, capsfusion: Cli, name: str) -> None:
    before = sorted(path for path in lake.rglob("*") if "_capsfusion" not in path.parts)
    commands = [("publish", name), ("pin", "--snapshot", f"{lake}@{name}")]
    commands += [("snapshots", verb, name) for verb in ("hold", "release", "show", "verify")]
    for command in commands:
        code, _, err = capsfusion(*command, *([] if command[0] == "pin" else ["--lake", lake]))
        assert code == 2, (command, err)
        assert "cannot be the name of a snapshot" in err
    assert sorted(path for path in lake.rglob("*") if "_capsfusion" not in path.parts) == before


def test_a_lake_with_a_backtick_in_its_path(spark: "SparkSession", tmp_path: Path) -> None:
    from capsfusion_etl.lake.create import open_lake

    assert open_lake(spark, str(tmp_path / "it`s")).read("pairs").count() == 0


def test_of_two_publishers_one_wins_and_the_other_says_so(
    made: tuple[Path, Any], lake: Path, spark: "SparkSession"
) -> None:
    from capsfusion_etl.lake.create import open_lake
    from capsfusion_etl.lake.run import Run
    from capsfusion_etl.snapshots.catalog import find
    from capsfusion_etl.stages.publish import publish

    config, ended = replace(made[1].publish, name="both"), []

    def go(held_out: float) -> None:
        run = Run(open_lake(spark, str(lake)))
        try:
            ended.append(publish(run, made[1].params_hash, replace(config, held_out=held_out), PASSED).name)
        except Exception as error:  # noqa: BLE001  what it is is what we look at
            ended.append(explain(error))

    threads = [threading.Thread(target=go, args=(share,)) for share in (0.1, 0.9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended.count("both") == 1, ended
    assert isinstance(next(e for e in ended if e != "both"), RetryError | InputError), ended
    assert find(Run(open_lake(spark, str(lake))), "both").verify() == []


def test_the_report_says_the_same_by_spark_and_without_it(
    lake: Path, capsfusion: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report() -> str:
        code, out, err = capsfusion("report", "--lake", lake)
        assert code == 0, err
        return re.sub(r"nonce-?=?\W?\w+|run \d{8}-\d{6}-\w+", "", Path(out.strip()).read_text())

    with monkeypatch.context() as patch:
        patch.setattr("capsfusion_etl.spark.session.get_session", lambda *_: pytest.fail("Spark was started"))
        alone = report()
    assert "IMG_0005.jpg" in alone
    assert alone.count("<article") > 20
    monkeypatch.setattr("capsfusion_etl.queries.connected", by_spark)
    assert report() == alone


def by_spark(*_: object) -> None:
    raise NotHereError("a test")


def test_the_report_in_a_browser(lake: Path, capsfusion: Cli, tmp_path: Path) -> None:
    code, _, _ = capsfusion("validate", "--lake", lake)
    assert code == 0
    trained = lake / "_capsfusion" / "checkpoints"
    for name, metrics, loss in ("here", '{"step": 1, "loss": 3.25}\n', 2.5), ("elsewhere", "", None):
        (trained / name).mkdir(parents=True)
        (trained / name / "metrics.jsonl").write_text(metrics)
        (trained / name / "evaluation.json").write_text(
            json.dumps({"pairs": 2, "loss": loss, "mismatched_loss": 4.0, "first_loss": 5.0})
        )
    code, out, err = capsfusion("report", "--lake", lake)
    assert code == 0, err
    page = Path(out.strip())
    text = page.read_text()
    assert len(text) < 5_000_000
    assert "<script>document.title" not in text
    assert text.count("<script") == 1  # the report's own script
    assert "The quality gate passed" in text
    assert "1 steps, loss 3.250" in text
    assert "Another machine made its steps." in text
    assert text.count("Held-out pictures:") == 1
    assert '<mark class="kept" title="kept">Lisbon</mark>' in text
    browser = next((b for b in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if b), None)
    if browser is None:
        pytest.skip("no Chromium is installed: the page was not opened")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,2400"]

    def look(anchor: str, *more: str) -> str:
        command = [browser, *flags, f"--user-data-dir={tmp_path}/profile", *more, f"{page.as_uri()}{anchor}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    everything = look("", "--dump-dom")
    assert "<title>Captions of" in everything
    cards = everything.count("<article")
    assert f"{cards} of {cards} shown" in everything
    found = look("#words=Ghent", "--dump-dom")
    assert re.search(rf">[12] of {cards} shown<", found)
    refused = look("#verdict=cut_off", "--dump-dom")
    assert refused.count('data-verdict="cut_off"') == int(re.search(r">(\d+) of \d+ shown<", refused).group(1))  # type: ignore[union-attr]
    look("", f"--screenshot={tmp_path}/report.png")
    assert (tmp_path / "report.png").stat().st_size > 10_000
