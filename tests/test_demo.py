"""Test the demo in a temporary folder: every stage runs, and every row of the sample ends in the right table."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from deltalake import DeltaTable

DEMO = Path(__file__).parent.parent / "examples" / "demo"


def test_the_demo_shows_the_whole_idea(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("sample", DEMO / "sample.py")
    assert spec is not None
    assert spec.loader is not None
    sample = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sample)

    done = subprocess.run([sys.executable, DEMO / "main.py", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lake = tmp_path / "lake"

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
