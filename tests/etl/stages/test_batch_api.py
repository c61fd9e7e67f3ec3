"""Test fusion through the batch API: cost, retries, resuming after a kill, and the budget."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from capsfusion_etl.dev_server import Behaviour
from capsfusion_etl.engines import FuserConfig, Question
from capsfusion_etl.engines.openai import OpenAIFuser
from capsfusion_etl.stages.fuse import batch_api as batches
from capsfusion_etl.stages.fuse.batch_replies import error_of, refusal_of, unpaid

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Start = Callable[..., tuple[str, Behaviour]]
Cli = Callable[..., tuple[int, str, str]]


def fuse(capsfusion: Cli, lake: Path, base_url: str, *more: str) -> tuple[int, str, str]:
    return capsfusion(
        "fuse", "--lake", lake, "--fuser", "openai-batch", "--set", f"fuser.base_url={base_url}", "--set",
        "fuser.model=m", "--set", "fuser.poll_s=0.05", "--set", "fuser.canaries=0.0", "--set",
        "fuser.usd_per_million_in=10.0", "--set", "fuser.usd_per_million_out=20.0", *more,
    )  # fmt: skip


def table(spark: "SparkSession", lake: Path, name: str, what: str = "*") -> list[tuple[object, ...]]:
    return [tuple(r) for r in spark.sql(f"select {what} from delta.`{lake}/{name}`").collect()]


def booked(spark: "SparkSession", lake: Path) -> tuple[float, int]:
    rows = spark.sql(f"select sum(settled_usd), sum(rows) from delta.`{lake}/spend` where stage = 'fuse'").collect()
    return rows[0][0], rows[0][1]


def test_answers_find_their_rows_at_half_the_price(
    start: Start, capsfusion: Cli, spark: "SparkSession", lake: Path
) -> None:
    base_url, behaviour = start()
    assert fuse(capsfusion, lake, base_url)[0] == 0
    rows = table(
        spark, lake, "fused_captions", "raw_caption, caption, verdict, prompt_tokens, completion_tokens, cost_usd"
    )
    assert len(rows) == 5
    for raw, caption, verdict, read, written, cost in rows:
        assert (caption, verdict) == (f"{raw}.", "accepted")
        assert cost == pytest.approx((read * 10 + written * 20) / 1e6 / 2)  # type: ignore[operator]
    assert table(spark, lake, "batches", "state, rows") == [("collected", 5)]
    assert booked(spark, lake) == (pytest.approx(sum(r[5] for r in rows)), 5)  # type: ignore[misc]
    assert behaviour.asked == {"batch answered": 5}
    assert fuse(capsfusion, lake, base_url)[0] == 0
    assert behaviour.asked == {"batch answered": 5}


def test_what_expired_or_failed_is_sent_again(start: Start, capsfusion: Cli, spark: "SparkSession", lake: Path) -> None:
    base_url, behaviour = start(faults={"expired": 0.4, "500": 0.2, "cut": 0.2}, seed=1)
    assert fuse(capsfusion, lake, base_url, "--set", "fuser.retries=9")[0] == 0
    rows = table(spark, lake, "fused_captions", "verdict, attempts")
    assert [r[0] for r in rows] == ["accepted"] * 5
    assert sum(int(str(r[1])) for r in rows) == sum(behaviour.asked.values()) > 5
    assert len(table(spark, lake, "batches")) > 1


def test_a_batch_that_was_sent_before_a_kill_is_collected(
    start: Start, capsfusion: Cli, spark: "SparkSession", lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_url, behaviour = start()

    def killed(*_: object) -> None:
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(batches.BatchJob, "_collect", killed)
        assert fuse(capsfusion, lake, base_url)[0] == 137
    assert table(spark, lake, "batches", "state, rows") == [("open", 5)]
    # Simulate a kill before the batch id was recorded.
    spark.sql(f"update delta.`{lake}/batches` set state = 'sending', batch_id = null")
    code, _, err = fuse(capsfusion, lake, base_url)
    assert code == 0
    assert "1 batches of a run that was stopped go on" in err
    assert behaviour.asked == {"batch answered": 5}
    assert len(table(spark, lake, "fused_captions")) == 5


def test_a_batch_keeps_to_the_budget(start: Start, capsfusion: Cli, spark: "SparkSession", lake: Path) -> None:
    base_url, _ = start(random_usage=True)
    code, _, err = fuse(capsfusion, lake, base_url, "--max-usd", "0.008")
    assert code == 3
    assert "the budget is used up" in err
    settled, rows = booked(spark, lake)
    assert 0 < settled <= 0.008
    assert 0 < rows < 5


def test_a_refused_key_stops_at_once(start: Start, capsfusion: Cli, lake: Path) -> None:
    code, _, err = fuse(capsfusion, lake, "http://127.0.0.1:9/v1")
    assert code == 3
    assert "cannot be reached" in err


def test_a_batch_that_ran_out_of_money_is_sent_again() -> None:
    no_money = {"response": {"status_code": 429, "body": {"error": {"code": "insufficient_quota", "message": "No"}}}}
    good = {"response": {"status_code": 200, "body": {"choices": []}}}
    assert [unpaid(entry) for entry in (no_money, good, {"response": {"status_code": 429}})] == [True, False, False]
    assert refusal_of([good, no_money]) is None
    assert refusal_of([no_money, no_money]) == "No"
    assert error_of({"response": {"status_code": 400, "body": "<html>"}}) == "<html>"
    assert error_of({"response": "x", "error": "y"}) == "y"


def test_ids_fit_the_api() -> None:
    config = FuserConfig(name="openai-batch", model="m", usd_per_million_in=10.0)
    question = Question("f" * 64, "a", "b", attempt=3)
    assert len(batches.custom_id(question)) <= 64
    online = OpenAIFuser(FuserConfig(name="openai", model="m", usd_per_million_in=10.0))
    assert OpenAIFuser(config).most(question)[1] == online.most(question)[1] / 2
