"""Compare the memory that `train --dry-run` estimates for a rank with that of a real run of two ranks on the CPU.

Each rank takes three steps and prints its growth in resident memory, from before the model to the peak, beside the
estimate. torchrun starts the ranks:

    torchrun --standalone --nproc-per-node=2 benchmarks/memory.py [--shard] [--recompute selective]
"""

import argparse
import json
import os
import threading
from dataclasses import replace

import psutil
import torch
from capsfusion_trainer.config import micro_cpu
from capsfusion_trainer.data.batch import Batch
from capsfusion_trainer.training.distributed import init_distributed
from capsfusion_trainer.training.estimate import estimate
from capsfusion_trainer.training.step import TrainStep


class Peak:
    """Samples the resident memory of this process until it is stopped."""

    def __init__(self) -> None:
        self.base = self.most = psutil.Process().memory_info().rss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.most = max(self.most, psutil.Process().memory_info().rss)

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self.most - self.base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shard", action="store_true")
    parser.add_argument("--recompute", default="none")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = replace(
        micro_cpu(), llm_width=768, llm_layers=8, heads=8, vision_width=256, bridge_layers=4, global_batch_size=32,
        micro_batch_size=16, max_tokens=64, shard=options.shard, recompute=options.recompute,
    )  # fmt: skip
    told = estimate(config, ranks=int(os.environ["WORLD_SIZE"]))
    with init_distributed(600) as world:
        peak = Peak()
        step = TrainStep(config, world, 10)
        images = torch.randint(0, 255, (16, 3, 64, 64), dtype=torch.uint8)
        for number in range(3):
            tokens = torch.randint(3, 250, (16, 64))
            batch = Batch([str(i) for i in range(16)], images, tokens, torch.ones(16))
            step.backward(batch)
            step.update(batch, number)
        grown = peak.stop()
        ratio = told.total / grown
        print(
            json.dumps({"rank": world.rank, "estimate_mb": told.total / 1e6, "grown_mb": grown / 1e6, "ratio": ratio})
        )
        step.close()


if __name__ == "__main__":
    main()
