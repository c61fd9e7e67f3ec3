"""Time the evaluation of a model: captions of 500 pictures with 5 beams of 20 tokens, 200 questions of 4 choices.

The model has random weights (4 layers of width 256, a vision tower of 6 layers), so every caption has all its tokens.
`--earlier` uses the interface of commit c98a88c, of which PYTHONPATH names a checkout; torchrun starts several ranks.

    python benchmarks/evaluation.py
    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node=2 benchmarks/evaluation.py
    PYTHONPATH=OLD/etl:OLD/trainer python benchmarks/evaluation.py --earlier
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import torch
from capsfusion_trainer.config import micro_cpu
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.training.distributed import init_distributed
from PIL import Image

PICTURES, QUESTIONS = 500, 200
LETTERS = "abcd"


def pictures(folder: Path) -> list[Path]:
    """Write noisy JPEGs of 320x240 pixels, unless they are there; return their paths."""
    chance, paths = np.random.default_rng(0), [folder / f"{i}.jpg" for i in range(PICTURES)]
    folder.mkdir(exist_ok=True)
    for path in paths:
        noise = Image.fromarray(chance.integers(0, 255, (30, 40, 3), dtype=np.uint8)).resize((320, 240))
        if not path.is_file():
            noise.save(path, "JPEG")
    return paths


def questions(folder: Path) -> Path:
    """Write a file in SEED-Bench's format; return its path."""
    rows = [
        {"question": "What is in the picture?", "answer": "A", "data_id": f"{i}.jpg", "data_type": "image"}
        | {f"choice_{letter}": f"a {letter * 4} in {letter}" for letter in LETTERS}
        for i in range(QUESTIONS)
    ]
    path = folder / "questions.json"
    path.write_text(json.dumps({"questions": rows}))
    return path


def earlier(model: Any, paths: list[Path], asked: Path) -> tuple[float, float]:
    from capsfusion_trainer.evaluation.describe import (  # type: ignore[import-not-found,unused-ignore]
        accuracy,
        captions,
        read_questions,
    )

    started = time.perf_counter()
    assert len(list(captions(model, paths, beams=5, max_tokens=20))) == PICTURES
    middle = time.perf_counter()
    accuracy(model, read_questions(asked), asked.parent)
    return middle - started, time.perf_counter() - middle


def now(model: CaptionModel, paths: list[Path], asked: Path, world: Any) -> tuple[float, float]:
    from capsfusion_trainer.evaluation.captions import benchmark_captions
    from capsfusion_trainer.evaluation.choices import accuracy, read_questions
    from capsfusion_trainer.model.decoding import Decoding

    started = time.perf_counter()
    assert len(benchmark_captions(model, paths, Decoding.benchmark(model, 5, 20), world)) == PICTURES
    middle = time.perf_counter()
    accuracy(model, read_questions(asked), asked.parent, world)
    return middle - started, time.perf_counter() - middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--earlier", action="store_true")
    options = parser.parse_args()
    folder = Path(gettempdir(), "capsfusion-evaluation")
    paths, asked = pictures(folder), questions(folder)
    config = replace(micro_cpu(), llm_width=256, llm_layers=4, vision_width=192, vision_layers=6, image_size=224)
    with init_distributed(600) as world:
        torch.manual_seed(0)
        model = CaptionModel(config).eval()
        captioned, answered = earlier(model, paths, asked) if options.earlier else now(model, paths, asked, world)
        if world.first:
            print(json.dumps({"captions/s": PICTURES / captioned, "questions/s": QUESTIONS / answered}))


if __name__ == "__main__":
    main()
