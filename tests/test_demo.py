"""Test the demo in a temporary folder: every row of the sample ends in the right table, and others train on it."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import towers
from deltalake import DeltaTable

EXAMPLES = Path(__file__).parent.parent / "examples"
DEMO = EXAMPLES / "demo"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lake that the demo leaves."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run([sys.executable, DEMO / "main.py", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "lake"


def exported(lake: Path, to: Path, form: str) -> Path:
    command = [Path(sys.executable).with_name("capsfusion"), "export", "--snapshot", f"{lake}@demo", "--format", form]
    subprocess.run([*command, "--to", to], check=True, capture_output=True)
    return to


def test_the_demo_shows_the_whole_idea(lake: Path) -> None:
    spec = importlib.util.spec_from_file_location("sample", DEMO / "sample.py")
    assert spec is not None
    assert spec.loader is not None
    sample = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sample)

    pairs = DeltaTable(lake / "pairs").to_pandas().set_index("pair_id")
    rejects = DeltaTable(lake / "rejects").to_pandas().join(pairs[["url"]], on="pair_id")
    assert set(rejects[["url", "reason"]].itertuples(index=False, name=None)) == {
        *sample.expected(),
        (sample.PHOTOGRAPHS[0][0], "repeated_row"),
    }
    published = DeltaTable(lake / "training_pairs").to_pandas().join(pairs[["url"]], on="pair_id")
    assert set(published["url"]) == {url for url, *_ in sample.PHOTOGRAPHS}
    assert set(published["split"]) == {"train", "held_out"}
    fused = DeltaTable(lake / "fused_captions").to_pandas()
    assert (fused["verdict"] == "accepted").mean() >= 0.5
    synthetic = DeltaTable(lake / "synthetic_captions").to_pandas()
    assert set(synthetic["engine"]) == {"column", "classifier"}
    assert "A photo of an espresso." in set(synthetic["caption"])

    evaluation = json.loads((lake / "_capsfusion/checkpoints/demo/evaluation.json").read_text())
    assert evaluation["loss"] < evaluation["first_loss"]
    report = (lake / "report.html").read_text()
    assert report.count('src="data:image/jpeg;base64,') >= 8
    assert 'src="http' not in report  # it opens offline
    for place in ("snapshots/demo.json", "checkpoints/demo/model/model.safetensors", "quality/index.html"):
        assert (lake / "_capsfusion" / place).is_file()


def test_open_clip_trains_on_it(lake: Path, tmp_path: Path) -> None:
    tars = exported(lake, tmp_path / "tars", "webdataset") / "train-{00000..00000}.tar"
    subprocess.run(
        [
            sys.executable, "-W", "ignore", "-m", "open_clip_train.main", "--train-data", str(tars), "--dataset-type",
            "webdataset", "--model", "ViT-S-32-alt", "--batch-size", "2", "--epochs", "1", "--warmup", "2", "--workers",
            "1", "--precision", "fp32", "--logs", str(tmp_path), "--name", "run",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    assert "Train Epoch: 0" in (tmp_path / "run" / "out.log").read_text()
    assert (tmp_path / "run" / "checkpoints" / "epoch_1.pt").is_file()


def test_the_example_of_a_small_model_trains_on_it(lake: Path, tiny_llama: Path, tmp_path: Path) -> None:
    towers.vit(tmp_path / "vit")
    told = ("--vision", tmp_path / "vit", "--language", tiny_llama, "--steps", "21", "--batch", "4")
    example, hub = EXAMPLES / "exports" / "train_vlm.py", exported(lake, tmp_path / "hub", "huggingface")
    done = subprocess.run([sys.executable, example, hub, *told], check=True, capture_output=True, text=True)
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
