"""torchrun with `capsfusion train`, whose exit status is the training's: 2 for an input, 3 for the machine, 143 for a
SIGTERM. torchrun itself ends with 1 whatever happened.

    python -m capsfusion_trainer.launch --nproc-per-node=8 train --snapshot lake@july --recipe emu_7b_10m
"""

import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun


def main(arguments: list[str]) -> int:
    """Run torchrun's options up to `train`, and `capsfusion train` with the rest; returns the exit status."""
    at = arguments.index("train") if "train" in arguments else len(arguments)
    try:
        torchrun([*arguments[:at], "-m", "capsfusion_etl.cli", *(arguments[at:] or ["train"])])
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
