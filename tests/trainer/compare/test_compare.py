"""Tests of `capsfusion compare`: strategies, scales and seeds, scored on one suite."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_etl.snapshots.manifest import GateResult
from capsfusion_trainer.compare.fingerprint import fingerprints
from capsfusion_trainer.compare.run import newest
from capsfusion_trainer.config import micro_cpu
from deltalake import DeltaTable
from PIL import Image

Cli = Callable[..., tuple[int, str, str]]
COLOURS = ("teal", "red", "navy", "olive")


@pytest.fixture
def lake(snapshot: Callable[..., Path]) -> Path:
    """A lake with the same captions under two names, as the strategies fused and raw."""
    lake = snapshot(21, broken=())
    raw = replace(open_snapshot(f"{lake}@first"), name="raw", strategy="raw")
    (lake / "_capsfusion/snapshots/raw.json").write_text(raw.text())
    return lake


@pytest.fixture
def suite(tmp_path: Path) -> list[Any]:
    """Options of a suite: four pictures with references, clozes, and lines of a text."""
    folder = tmp_path / "test"
    folder.mkdir()
    for colour in COLOURS:
        Image.new("RGB", (40, 30), colour).save(folder / f"{colour}.png")
    images = [{"id": n, "file_name": f"{colour}.png"} for n, colour in enumerate(COLOURS)]
    said = [{"image_id": n, "caption": f"A picture of {n} of the Oslo Book Fair"} for n in range(len(COLOURS))]
    (tmp_path / "naming.json").write_text(json.dumps({"images": images, "annotations": said}))
    lines = [{"image": f"{c}.png", "prompt": "Picture", "answers": [str(n)]} for n, c in enumerate(COLOURS)]
    (tmp_path / "numbers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "prose.txt").write_text("The Oslo Book Fair has pictures.\n\nA fair of books.\n")
    names = {"references": "naming.json", "clozes": "numbers.jsonl", "text": "prose.txt"}
    options = [part for name, file in names.items() for part in (f"--{name}", tmp_path / file)]
    small = ("trainer.llm_width=32", "trainer.vision_width=32", "trainer.max_tokens=24")
    return [*options, "--images", folder, "--beams", "1", *(part for item in small for part in ("--set", item))]


def table(path: Path) -> pa.Table:
    found = DeltaTable(path).to_pyarrow_table()
    return found.sort_by([(name, "ascending") for name in found.column_names])


def test_strategies_are_compared_at_scales(lake: Path, suite: list[Any], capsfusion: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["compare", "--lake", lake, "--strategies", "fused,raw", "--scales", "8,16", "--seeds", "0,1",
               "--out", out, *suite]  # fmt: skip
    code, said, err = capsfusion(*command)
    assert code == 0, err
    scores = table(out / "scores")
    cells = {(r["strategy"], r["pairs"], r["seed"]) for r in scores.select(["strategy", "pairs", "seed"]).to_pylist()}
    assert cells == {(s, p, seed) for s in ("fused", "raw") for p in (8, 16) for seed in (0, 1)}
    assert {(r["benchmark"], r["metric"]) for r in scores.select(["benchmark", "metric"]).to_pylist()} >= {
        ("naming", "CIDEr-D"), ("naming", "entity recall"), ("captions", "distinct"),
        ("numbers", "cloze choice accuracy"), ("numbers", "cloze choice accuracy from the picture"),
        ("prose", "loss per token"),
    }  # fmt: skip
    assert set(scores.filter(pc.field("benchmark") == "prose")["unit"].to_pylist()) == {"line 1", "line 2"}
    captions = DeltaTable(out / "captions").to_pyarrow_table()
    assert captions.num_rows == 8 * len(COLOURS)
    assert "## prose: loss per token (lower is better)" in said
    losses = [line for line in said.split("## prose")[1].splitlines() if line.startswith(("| fused", "| raw"))]
    assert losses[0] == losses[1].replace("raw", "fused")
    assert "| raw | +0.000 [+0.000, +0.000], d +0.00 | +0.000 [+0.000, +0.000], d +0.00 |" in said
    assert "| strategy | gain | difference to fused |" in said
    page = (out / "results.html").read_text()
    assert page.count("<svg") == 1
    assert page.count("<h2>") == said.count("\n## ") + said.startswith("## ")
    assert (out / "results.md").read_text().strip().endswith(said.split("\n## ")[-1].rsplit("\n", 2)[0].strip())

    evaluations = DeltaTable(lake / "evaluations").to_pyarrow_table()
    done = (out / "raw-8-0/complete.json").stat().st_mtime_ns
    [scored] = out.glob("raw-8-1/scored-*/8.parquet")
    scored.unlink()  # as if the process had been killed before
    assert capsfusion(*command)[0] == 0
    assert (out / "raw-8-0/complete.json").stat().st_mtime_ns == done
    again = DeltaTable(lake / "evaluations").to_pyarrow_table()
    assert again.num_rows == evaluations.num_rows + evaluations.num_rows // 8
    assert table(out / "scores").equals(scores)


def test_machines_share_a_grid(lake: Path, suite: list[Any], capsfusion: Cli, tmp_path: Path) -> None:
    """Scores that are brought count for equal captions, settings and pictures, wherever these lie; others do not."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    grid = ["compare", "--lake", lake, "--strategies", "fused,raw", "--scales", "8"]
    assert capsfusion(*grid, "--out", first, *suite)[0] == 0
    for out in (second, third):
        for folder in first.glob("*/scored-*"):
            if out == third or folder.parent.name != "raw-8-0":
                shutil.copytree(folder, out / folder.relative_to(first))
    (tmp_path / "test").rename(tmp_path / "pictures")
    moved = [tmp_path / "pictures" if word == tmp_path / "test" else word for word in suite]
    code, said, err = capsfusion(*grid, "--out", second, *moved)
    assert code == 0, err
    assert "fused-8-0: its scores were brought here, so it is not trained" in said
    assert [path.parent.name for path in second.glob("*/complete.json")] == ["raw-8-0"]
    assert table(second / "scores").equals(table(first / "scores"))
    assert "Snapshots: fused: first (version 0), raw (version 0)." in (second / "results.md").read_text()

    code, said, err = capsfusion(*grid, "--out", third, *moved, "--set", "trainer.peak_lr=0.001")
    assert code == 0, err
    assert said.count("of other captions, settings or benchmarks; it is trained anew") == 2
    assert {path.parent.name for path in third.glob("*/complete.json")} == {"fused-8-0", "raw-8-0"}


def test_equal_captions_and_language_models_have_one_fingerprint(lake: Path, tmp_path: Path) -> None:
    manifest = open_snapshot(f"{lake}@first")
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    def made_from(llm: Path, lake: Path = lake, **more: Any) -> str:
        moved = replace(manifest, table=str(lake / "training_pairs"))
        return fingerprints(replace(micro_cpu(), llm_model=str(llm), **more), {"fused": moved})["fused"]

    shutil.copytree(lake, tmp_path / "copy")
    known = made_from(here)
    assert made_from(there, tmp_path / "copy", steps=7, seed=3, feature_cache=str(here)) == known
    assert made_from(here, freeze_llm=True) != known
    (there / "config.json").write_text("{ }")
    assert made_from(there) != known
    one = replace(manifest, files=tuple(replace(file, split="train") for file in manifest.files))
    more_rows = fingerprints(replace(micro_cpu(), llm_model=str(here)), {"fused": one})["fused"]
    assert more_rows != known


def test_a_newer_snapshot_that_its_gate_refused_is_told_of(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = open_snapshot(f"{lake}@first")
    assert newest(str(lake), "fused") == first
    assert not capsys.readouterr().out
    refused = replace(first, name="second", version=1, gate=GateResult(False, 1, ("too few names",), "report"))
    (lake / "_capsfusion/snapshots/second.json").write_text(refused.text())
    assert newest(str(lake), "fused") == first
    said = capsys.readouterr().out
    assert "second did not pass its gate (too few names); the one before, first (version 0), is used" in said


def test_checkpoints_along_one_run(lake: Path, suite: list[Any], capsfusion: Cli, tmp_path: Path) -> None:
    """The last checkpoint is the model of a run of its own; the tower is frozen, and its features are kept."""
    frozen = ["--set", "trainer.freeze_vision=true", "--set", "trainer.vision_model=efficientnet-lite0",
              "--set", "trainer.image_size=64"]  # fmt: skip
    grid = ["compare", "--lake", lake, "--strategies", "fused", *suite, *frozen]
    assert capsfusion(*grid, "--scales", "8,16", "--along", "--out", tmp_path / "along")[0] == 0
    assert capsfusion(*grid, "--scales", "16", "--out", tmp_path / "runs")[0] == 0
    assert {path.name for path in (tmp_path / "along").glob("fused*")} == {"fused-16-0-along-8"}
    made = DeltaTable(lake / "evaluations").to_pyarrow_table(columns=["strategy", "pairs_seen", "step", "snapshot"])
    assert {tuple(row.values()) for row in made.to_pylist()} == {("fused", 8, 1, "first"), ("fused", 16, 2, "first")}

    def scores(name: str) -> list[dict[str, Any]]:
        return list(table(tmp_path / name / "scores").filter(pc.field("pairs") == 16).to_pylist())

    assert scores("along") == scores("runs")
    kept = list((tmp_path / "along/features").rglob("*.safetensors"))
    assert len(kept) == 16 + len(COLOURS)


def test_what_is_not_fair_is_refused(lake: Path, suite: list[Any], capsfusion: Cli, tmp_path: Path) -> None:
    def refused(*words: Any, strategies: str = "fused,raw", scales: str = "8", options: list[Any] = suite) -> str:
        grid = ["--lake", lake, "--strategies", strategies, "--scales", scales, "--out", tmp_path / "out"]
        code, _, err = capsfusion("compare", *grid, *options, *words)
        assert code == 2, err
        return err

    assert "--scales wants whole numbers" in refused(scales="8k")
    assert "the snapshots have 21 pairs to train on; --repeat" in refused(scales="22")
    assert "a step takes 8 pairs; the nearest number of pairs is 8" in refused(scales="10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("capsfusion_trainer.compare.run._COPIES", 10**15)
        assert "do not fit into memory. Unsorted, the strategies would see different ones of the 21" in refused()
    assert "has no snapshot of strategy mixed: `capsfusion publish mixed" in refused(strategies="mixed")
    assert "--strategies: the same value is there twice" in refused(strategies="raw,raw")
    assert "--against x: is none of" in refused("--against", "x")
    assert "rank nothing" in refused(options=[])
    assert "two benchmarks have the name prose" in refused("--text", tmp_path / "prose.txt")
    (tmp_path / "test/red.png").unlink()
    assert "1 pictures are not in" in refused()
    first = open_snapshot(f"{lake}@first")
    other = replace(first, name="raw", strategy="raw", files=tuple(replace(f, split="train") for f in first.files))
    (lake / "_capsfusion/snapshots/raw.json").write_text(other.text())
    Image.new("RGB", (40, 30), "red").save(tmp_path / "test/red.png")
    assert "different pairs, which would be compared as well: fused 21, raw 23, both 21" in refused()


def test_two_ranks_compare_as_one_does(lake: Path, suite: list[Any], tmp_path: Path) -> None:
    program = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "capsfusion_etl.cli"]
    grid = ["compare", "--lake", lake, "--strategies", "fused,raw", "--scales", "16", "--out", tmp_path / "two", *suite]
    done = subprocess.run([sys.executable, *program, *map(str, grid)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("## naming: CIDEr-D") == 1
    captions = table(tmp_path / "two/captions")
    assert captions.num_rows == 2 * len(COLOURS)
    assert table(tmp_path / "two/scores").filter(pc.field("metric") == "loss per token").num_rows == 2 * 2
