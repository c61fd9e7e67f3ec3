"""Test the claim of CapsFusion in the small (docs/claim.md): `make claim`, or

    python examples/claim/main.py FOLDER [tiny | small | day | night]

Every step keeps its result in FOLDER; after a stop, the same command goes on.
"""

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import figures
import hypotheses
import kept
import kept_models
import material
import torch
from capsfusion_trainer.compare.grid import Grid
from capsfusion_trainer.compare.run import compare, newest
from capsfusion_trainer.compare.store import scores_of
from capsfusion_trainer.compare.suite import Suite, read_suite
from capsfusion_trainer.config import TrainerConfig
from lake import publish_oracle, publish_strategies, write_pairs
from models import frozen_and_fired, language_model, synthetic_captions
from sizes import STUDIES
from torch.multiprocessing import spawn


def main(folder: Path, size: str = "small") -> list[hypotheses.Decision]:
    """Run a study in `folder`/`size`; return what became of its hypotheses."""
    study, folder = STUDIES[size], folder / size
    lake, strategies = folder / "lake", [*study.strategies, "oracle"]
    with _timed("pictures"):
        scenes = material.train_scenes(study)
        pictures = material.write_pictures(scenes, folder / "pictures")
        naming, generic, names, prose = material.write_test(study, folder / "test")
    with _timed("captioner"):
        kept.take_synthetic(kept.KEPT / size, folder / "synthetic.json")
        captions = synthetic_captions(study, folder, pictures)
    with _timed("lake"):
        write_pairs(scenes, pictures, captions, folder / "pairs.parquet")
        publish_strategies(study, lake, folder / "pairs.parquet", kept.KEPT / size)
        publish_oracle(lake, scenes, pictures)
    kept_models.take(kept.KEPT / size, folder)
    with _timed("language model"):
        read = strategies if study.oracle_read else study.strategies
        llm = language_model(study, [newest(str(lake), strategy) for strategy in read], folder)
    grid = Grid(strategies, list(study.scales), list(study.seeds))
    suite = read_suite(folder / "test" / "pictures", [naming, generic], [names], [prose], beams=1)
    configs = frozen_and_fired(folder, llm)
    with _timed("compare"):  # a process each: models as small as these gain nothing from a second core
        work = (list(configs.items()), str(lake), grid, folder, suite)
        spawn(_compare, work, nprocs=len(configs), daemon=True)  # they end with this process
    scores = {how: scores_of(folder / how) for how in configs}
    decided = hypotheses.decisions(scores, grid)
    print(figures.write(scores, folder))
    print(hypotheses.write(decided, folder / "hypotheses.md"))
    print(f"{folder}/hypotheses.md, means.md, models.csv, frozen/results.html, fired/results.html")
    return decided


def _compare(
    number: int, configs: list[tuple[str, TrainerConfig]], lake: str, grid: Grid, folder: Path, suite: Suite
) -> None:
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // len(configs)))
    how, config = configs[number]
    sys.stdout = _Labelled(sys.stdout, how)
    with _timed(f"compare, language model {how}"):
        compare(lake, grid, config, folder / how, suite)


class _Labelled(io.TextIOBase):
    """Write lines with the name of their process before them: two print on one screen."""

    def __init__(self, screen: TextIO, name: str):
        """Begin a line on `screen`."""
        self._screen, self._name, self._rest = screen, name, ""

    def write(self, text: str) -> int:
        """Write the lines that are whole, each in one piece."""
        *lines, self._rest = (self._rest + text).split("\n")
        self._screen.write("".join(f"{self._name:8s} {line}\n" for line in lines))
        self._screen.flush()
        return len(text)


@contextmanager
def _timed(step: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    print(f"{step}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "claim"), *sys.argv[2:3])
