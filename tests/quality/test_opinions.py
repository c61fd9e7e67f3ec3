"""Test second opinions on accepted captions: from the sample through the budget to the gate and the report."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from capsfusion_etl.dev_server import Behaviour
from capsfusion_etl.errors import BudgetError
from capsfusion_quality.measure import interval

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Start = Callable[..., tuple[str, Behaviour]]
Cli = Callable[..., tuple[int, str, str]]
Ask = Callable[..., dict[str, int]]


@pytest.fixture
def ask(lake: Path, made: tuple[Path, Any], spark: "SparkSession") -> Ask:
    """Ask for opinions on the lake's captions; return the number of rows of each verdict."""
    from capsfusion_etl.budget.budget import BudgetConfig
    from capsfusion_etl.engines import SecondOpinionConfig
    from capsfusion_etl.lake.create import open_lake
    from capsfusion_etl.lake.run import Run
    from capsfusion_etl.stages.opinion.stage import ask_opinions

    def ask(base_url: str, share: float = 1.0, max_usd: float | None = None, **changes: Any) -> dict[str, int]:
        prices = {"usd_per_million_in": 1_000.0, "usd_per_million_out": 1_000.0}
        config = SecondOpinionConfig(model="large", base_url=base_url, share=share, **prices, **changes)
        run = Run(open_lake(spark, str(lake)))
        ask_opinions(run, config, BudgetConfig(max_usd=max_usd), caption_params_hash=made[1].params_hash)
        rows = run.lake.read("opinions").groupBy("verdict").count().collect()
        return {row["verdict"]: row["count"] for row in rows}

    return ask


def accepted(lake: Path) -> int:
    from deltalake import DeltaTable

    return DeltaTable(lake / "fused_captions").to_pyarrow_table().column("verdict").to_pylist().count("accepted")


def test_a_greater_share_adds_to_the_sample_and_asks_nothing_twice(lake: Path, ask: Ask, start: Start) -> None:
    base_url, server = start()
    some = ask(base_url, share=0.5)["good"]
    assert 0 < some < accepted(lake)
    assert ask(base_url, share=0.5) == {"good": some}
    assert ask(base_url) == {"good": accepted(lake)}
    assert server.asked["answered"] == accepted(lake)


def test_a_server_without_schemas_and_one_that_fails_give_what_they_can(lake: Path, ask: Ask, start: Start) -> None:
    base_url, _ = start(schemas=False, opinions={"false": 0.5}, faults={"filtered": 0.2}, seed=3)
    found = ask(base_url)
    assert sum(found.values()) == accepted(lake)
    assert set(found) == {"good", "false", "engine_error"}


def test_opinions_are_paid_from_the_budget_of_the_run(lake: Path, ask: Ask, start: Start) -> None:
    base_url, server = start()
    with pytest.raises(BudgetError):
        ask(base_url, max_usd=5.0)  # a request reserves about half a dollar
    assert 0 < server.asked["answered"] < accepted(lake)
    assert ask(base_url) == {"good": accepted(lake)}
    assert server.asked["answered"] == accepted(lake)


def test_the_gate_refuses_what_a_second_opinion_finds_false(
    lake: Path, ask: Ask, start: Start, capsfusion: Cli
) -> None:
    ask(start(opinions={"false": 0.5}, seed=1)[0])
    status, _, said = capsfusion("validate", "--lake", lake)
    assert status == 1
    assert re.search(
        r"failed: opinions: few accepted captions are false .* sampled rows \(\d+\.\d%; 95 % interval", said
    )
    capsfusion("report", "--lake", lake)
    report = (lake / "report.html").read_text()
    assert "Captions that the judge accepts and the second opinion does not" in report
    assert re.search(r"<b>\d\d\.\d%</b> are faithful to their sources by large", report)
    assert capsfusion("validate", "--lake", lake, "--set", "gate.rules.opinions.unfaithful.max_share=0.9")[0] == 0


def test_a_false_caption_among_few_proves_nothing() -> None:
    assert all(interval(wrong, asked)[0] < 0.15 for wrong, asked in ((1, 1), (2, 3), (2, 5), (0, 0)))
    assert interval(20, 50)[0] > 0.15
    assert [round(end, 4) for end in interval(3, 60)] == [0.0104, 0.1392]


def test_without_a_second_opinion_the_command_says_how_to_set_it(lake: Path, capsfusion: Cli) -> None:
    status, _, said = capsfusion("opinion", "--lake", lake)
    assert status == 2
    assert "--set judge.second_opinion.engine=openai" in said
    status, _, said = capsfusion("opinion", "--lake", lake, "--set", "judge.second_opinion.rubric=paper-v1")
    assert status == 2
    assert "no slot for the fused caption" in said
    status, _, said = capsfusion("opinion", "--lake", lake, "--set", "judge.second_opinion.engine=embedded")
    assert "gives no second opinions" in said


def test_a_takedown_removes_opinions(lake: Path, ask: Ask, start: Start, capsfusion: Cli) -> None:
    from deltalake import DeltaTable

    ask(start()[0])
    pair_id = DeltaTable(lake / "opinions").to_pyarrow_table().column("pair_id")[0].as_py()
    assert "opinion" in capsfusion("explain", pair_id, "--lake", lake)[1]
    assert capsfusion("takedown", "--lake", lake, "--pair-id", pair_id)[0] == 0
    assert pair_id not in DeltaTable(lake / "opinions").to_pyarrow_table().column("pair_id").to_pylist()
