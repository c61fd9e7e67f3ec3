"""Compare micro-batches sorted by caption length with micro-batches in the order of the data, on real captions.

Both sides run `TrainStep.backward` over the same batches on the CPU: a random language model, small pictures, captions
of a Parquet file with the lengths that SmolLM2's tokenizer gives them. Sides take turns; each round prints positions
and speed of the sorted side relative to the other.

    python benchmarks/padding.py --triplets triplets.parquet --column capsfusion
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import pyarrow.parquet as pq
import torch
from capsfusion_etl.engines.generation.weights import smollm2
from capsfusion_trainer.config import micro_cpu
from capsfusion_trainer.data.batch import PADDING, Batch
from capsfusion_trainer.training.distributed import init_distributed
from capsfusion_trainer.training.step import TrainStep
from transformers import AutoTokenizer

ROWS = 512


class InOrder(TrainStep):
    """Micro-batches in the order of the data, padded to the longest caption of the rank's share."""

    def pieces(self, batch: Batch) -> Iterator[Batch]:
        for start in range(0, self._share, self._micro):
            yield batch.rows(list(range(start, start + self._micro)), batch.tokens.shape[1])


def batch_of(captions: list[str], step: TrainStep, tokenizer: Any) -> Batch:
    size = step.model.image_size
    images = torch.randint(0, 255, (len(captions), 3, size, size), dtype=torch.uint8)
    tokens = replace(step.encoding, tokenizer=tokenizer).tokens(captions)
    tokens = tokens.where(tokens == PADDING, tokens % 256)  # only the lengths matter, and a large vocabulary is slow
    return Batch([str(i) for i in range(len(captions))], images, tokens, torch.ones(len(captions)))


def timed(step: TrainStep, batch: Batch) -> tuple[float, float, float]:
    """Return the loss, the positions of the language model (35 before a caption) and the seconds of a step."""
    positions = sum(piece.tokens.numel() + 35 * len(piece) for piece in step.pieces(batch))
    started = time.perf_counter()
    return step.backward(batch), positions, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triplets", required=True)
    parser.add_argument("--column", default="capsfusion")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    captions = [c for c in pq.read_table(options.triplets)[options.column].to_pylist() if c]
    tokenizer = AutoTokenizer.from_pretrained(smollm2())
    with init_distributed(600) as world:
        config = replace(
            micro_cpu(), llm_width=256, llm_layers=6, global_batch_size=ROWS, micro_batch_size=32, max_tokens=64,
            image_size=32, freeze_vision=True,
        )  # fmt: skip
        sides = {"in order": InOrder(config, world, 10), "sorted": TrainStep(config, world, 10)}
        ratios = []
        for number in range(options.rounds):
            batch = batch_of(captions[ROWS * number : ROWS * (number + 1)], sides["sorted"], tokenizer)
            told = {name: timed(step, batch) for name, step in sides.items()}
            ratios.append(told["in order"][2] / told["sorted"][2])
            line = {name: {"loss": loss, "pairs/s": round(ROWS / s, 1)} for name, (loss, _, s) in told.items()}
            positions = told["sorted"][1] / told["in order"][1]
            print(json.dumps(line | {"positions": round(positions, 3), "speed": round(ratios[-1], 3)}))
        print(f"{median(ratios):.2f} times the pairs/s ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
