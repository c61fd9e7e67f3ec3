"""Test that several ranks evaluate as one does: each takes a share, the first one writes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_trainer.evaluation.held_out import evaluate
from PIL import Image
from torchrun import alone

LAUNCH = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node=2",
    "-m",
    "capsfusion_etl.cli",
]


def test_two_ranks_score_what_one_scores(snapshot: Callable[..., Path], tmp_path: Path) -> None:
    lake, out = snapshot(21, broken=()), tmp_path / "out"
    alone(lake, out)
    one = evaluate(open_snapshot(f"{lake}@first"), out)
    subprocess.run([*LAUNCH, "evaluate", "--snapshot", f"{lake}@first", "--out", str(out)], check=True, timeout=300)
    two = json.loads((out / "evaluation.json").read_text())
    for name in ("pairs", "images", "loss", "first_loss"):
        assert two[name] == pytest.approx(one[name]), name
    images = []
    for number in range(5):
        Image.new("RGB", (32, 32), (40 * number, 90, 200)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png"})
    references = tmp_path / "coco.json"
    captions = [{"image_id": number, "caption": "A picture of the fair."} for number in range(5)]
    references.write_text(json.dumps({"images": images, "annotations": captions}))
    command = [
        "evaluate",
        "--references",
        str(references),
        "--checkpoint",
        str(out / "model"),
        "--images",
        str(tmp_path),
    ]
    found = []
    for launch in ([sys.executable, "-m", "capsfusion_etl.cli"], LAUNCH):
        said = tmp_path / f"{len(found)}.json"
        subprocess.run(
            [*launch, *command, "--predictions", str(said), "--max-new-tokens", "12"], check=True, timeout=300
        )
        found.append(json.loads(said.read_text()))
    assert found[0] == found[1]
    assert [row["image_id"] for row in found[1]] == [0, 1, 2, 3, 4]
