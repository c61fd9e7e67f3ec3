"""Tests of `capsfusion compare`: strategies, scales and seeds."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from capsfusion_trainer.data.pin import open_snapshot
from deltalake import DeltaTable

Cli = Callable[..., tuple[int, str, str]]


def test_strategies_are_compared_at_scales(snapshot: Callable[..., Path], capsfusion: Cli, tmp_path: Path) -> None:
    lake = snapshot(21)
    raw = replace(open_snapshot(f"{lake}@first"), name="raw", strategy="raw")
    (lake / "_capsfusion/snapshots/raw.json").write_text(raw.text())
    command = [
        "compare", "--lake", lake, "--strategies", "fused,raw", "--scales", "8,16", "--seeds", "0,1",
        "--out", tmp_path / "out", "--set", "trainer.llm_width=32", "--set", "trainer.vision_width=32",
    ]  # fmt: skip
    code, out, err = capsfusion(*command)
    assert code == 0, err
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert {(r["strategy"], r["pairs"], r["seed"]) for r in results} == {
        (s, p, seed) for s in ("fused", "raw") for p in (8, 16) for seed in (0, 1)
    }
    by = {(r["strategy"], r["pairs"], r["seed"]): r["value"] for r in results}
    assert by["fused", 8, 0] == by["raw", 8, 0]  # the same captions under two names
    assert by["fused", 16, 0] < by["fused", 8, 0]
    assert by["fused", 8, 0] != by["fused", 8, 1]
    assert "| held-out loss | 8 pairs | 16 pairs |" in out
    assert " ± " in out
    assert (tmp_path / "out/results.svg").read_text().count("<svg") == 1
    done = (tmp_path / "out/raw-8-0/complete.json").stat().st_mtime_ns
    rows = DeltaTable(lake / "evaluations").to_pyarrow_table().num_rows
    assert rows == len(results)
    assert capsfusion(*command)[0] == 0
    assert (tmp_path / "out/raw-8-0/complete.json").stat().st_mtime_ns == done
    assert json.loads((tmp_path / "out/results.json").read_text()) == results
    assert DeltaTable(lake / "evaluations").to_pyarrow_table().num_rows == rows


def test_a_strategy_that_was_not_published(snapshot: Callable[..., Path], capsfusion: Cli, tmp_path: Path) -> None:
    code, _, err = capsfusion(
        "compare", "--lake", snapshot(), "--strategies", "mixed", "--scales", "8", "--out", tmp_path / "out"
    )
    assert code == 2
    assert "has no snapshot of strategy mixed: `capsfusion publish mixed --lake" in err
    code, _, err = capsfusion("compare", "--lake", tmp_path, "--strategies", "x", "--scales", "8k", "--out", tmp_path)
    assert (code, "--scales wants whole numbers" in err) == (2, True)
