"""Test that what is the server's fault settles no row, that canary rows come first, and that rows can be retried."""

from collections.abc import Callable
from pathlib import Path

import pytest
from capsfusion_etl.dev_server import Behaviour
from capsfusion_etl.lake.run import Run
from capsfusion_etl.stages.ingest.config import SourceConfig
from capsfusion_etl.stages.ingest.stage import ingest
from deltalake import DeltaTable

Start = Callable[..., tuple[str, Behaviour]]
Cli = Callable[..., tuple[int, str, str]]


def fuse(capsfusion: Cli, lake: Path, base_url: str, *more: str, fuser: str = "openai") -> tuple[int, str, str]:
    return capsfusion(
        "fuse", "--lake", lake, "--fuser", fuser, "--set", f"fuser.base_url={base_url}", "--set", "fuser.model=m",
        "--set", "fuser.poll_s=0.05", "--set", "fuser.usd_per_million_in=1000.0", "--set", "fuser.retries=0", *more,
    )  # fmt: skip


def verdicts(lake: Path) -> list[str]:
    return sorted(DeltaTable(lake / "fused_captions").to_pyarrow_table().column("verdict").to_pylist())


def spent(lake: Path) -> float:
    return float(sum(DeltaTable(lake / "spend").to_pyarrow_table().column("settled_usd").to_pylist()))


@pytest.mark.parametrize("fuser", ["openai", "openai-batch"])
def test_a_server_that_refuses_everything_settles_nothing_and_the_same_command_goes_on(
    start: Start, capsfusion: Cli, lake: Path, fuser: str
) -> None:
    base_url, behaviour = start(refuses="You exceeded your current quota")
    without = ("--set", "fuser.canaries=0.0")
    status, _, said = fuse(capsfusion, lake, base_url, *without, fuser=fuser)
    assert status == 2
    assert "You exceeded your current quota" in said
    assert verdicts(lake) == []
    behaviour.refuses = None
    assert fuse(capsfusion, lake, base_url, *without, fuser=fuser)[0] == 0
    assert verdicts(lake) == ["accepted"] * 5


def test_canary_rows_stop_the_stage_before_the_rest_is_paid(start: Start, capsfusion: Cli, lake: Path) -> None:
    base_url, behaviour = start(faults={"filtered": 1.0})
    status, _, said = fuse(capsfusion, lake, base_url)
    assert status == 2
    assert "0 of 8 canary rows were fused well" in said
    assert "Nothing else was asked" in said
    assert behaviour.asked == {"filtered": 8}
    assert verdicts(lake) == []
    assert DeltaTable(lake / "alarms").to_pyarrow_table().column("alarm").to_pylist() == ["canaries"]
    behaviour.faults = {}
    assert fuse(capsfusion, lake, base_url)[0] == 0
    assert DeltaTable(lake / "alarms").to_pyarrow_table().num_rows == 0
    assert verdicts(lake) == ["accepted"] * 5


def test_canary_rows_that_a_cap_leaves_unasked_are_no_failure(start: Start, capsfusion: Cli, lake: Path) -> None:
    base_url, _ = start()
    status, _, said = fuse(capsfusion, lake, base_url, "--max-usd", "1.0")  # a canary row reserves half a dollar
    assert status == 3
    assert "canary rows" not in said
    assert fuse(capsfusion, lake, base_url, "--max-usd", "100")[0] == 0
    assert verdicts(lake) == ["accepted"] * 5
    assert DeltaTable(lake / "alarms").to_pyarrow_table().num_rows == 0


def test_a_cap_holds_with_a_server_that_does_not_tell_its_tokens(start: Start, capsfusion: Cli, lake: Path) -> None:
    base_url, behaviour = start(usage=False)
    status, _, _ = fuse(capsfusion, lake, base_url, "--set", "fuser.canaries=0.0", "--max-usd", "1.5")
    assert status == 3
    assert 0 < behaviour.asked["answered"] < 5
    assert 0 < spent(lake) <= 1.5


def test_settled_errors_are_asked_for_again_on_demand(start: Start, capsfusion: Cli, lake: Path) -> None:
    base_url, behaviour = start(faults={"filtered": 1.0})
    assert fuse(capsfusion, lake, base_url, "--set", "fuser.canaries=0.0")[0] == 0
    assert verdicts(lake) == ["engine_error"] * 5
    behaviour.faults = {}
    assert fuse(capsfusion, lake, base_url)[0] == 0
    assert verdicts(lake) == ["engine_error"] * 5
    assert fuse(capsfusion, lake, base_url, "--retry", "engine_error, cut_off")[0] == 0
    assert verdicts(lake) == ["accepted"] * 5
    status, _, said = capsfusion("fuse", "--lake", lake, "--retry", "engine_errors")
    assert status == 2
    assert "'engine_errors' is none of" in said


def test_a_captioner_s_errors_are_asked_for_again_on_demand(
    start: Start, capsfusion: Cli, run: Run, tmp_path: Path, jpeg: Callable[..., bytes]
) -> None:
    (tmp_path / "photos").mkdir()
    for i, colour in enumerate(("teal", "red")):
        (tmp_path / "photos" / f"{i}.jpg").write_bytes(jpeg(colour, (80, 80)))
        (tmp_path / "photos" / f"{i}.txt").write_text(f"Old Harbour Bridge number {i}")
    ingest(run, SourceConfig(pairs=str(tmp_path / "photos")))
    base_url, behaviour = start(faults={"filtered": 1.0})
    command = (
        "caption", "--lake", run.lake.root, "--captioner", "openai", "--set", f"captioner.base_url={base_url}",
        "--set", "captioner.model=m",
    )  # fmt: skip

    def captions() -> list[str | None]:
        found = DeltaTable(Path(run.lake.root) / "synthetic_captions").to_pyarrow_table()
        return [caption for caption in found.column("caption").to_pylist() if caption]

    assert capsfusion(*command)[0] == 0
    behaviour.faults = {}
    assert capsfusion(*command)[0] == 0  # settled, so nothing is asked
    assert captions() == []
    assert {row["reason"] for row in run.lake.read("rejects").collect()} == {"engine_error"}
    assert capsfusion(*command, "--retry", "engine_error")[0] == 0
    assert len(captions()) == 2
    assert run.lake.read("rejects").count() == 0
    status, _, said = capsfusion(*command, "--retry", "nothing")
    assert (status, "is none of no_caption, bad_caption, engine_error" in said) == (2, True)
