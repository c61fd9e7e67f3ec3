"""Run `capsfusion train` under torchrun and exit with the training's status; torchrun itself exits with 1 on any error.

The status is 2 for an invalid input or setting, 3 if the machine ran out of something, 75 if the other nodes did not
come within --rdzv-conf, 143 after SIGTERM.

    python -m capsfusion_trainer.launch --nproc-per-node=8 train --snapshot lake@july --recipe emu_7b_10m
"""

import os
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.run import main as torchrun

OTHERS_MISSING = 75


def main(arguments: list[str]) -> int:
    """Pass the arguments before `train` to torchrun and the rest to `capsfusion`; return the exit status."""
    at = arguments.index("train") if "train" in arguments else len(arguments)
    if any(argument.startswith("--nnodes=") and ":" in argument for argument in arguments[:at]):
        # A node that joins later waits for an address that the first wrote for its own round only (torch 2.13).
        os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    try:
        torchrun([*arguments[:at], "-m", "capsfusion_etl.cli", *(arguments[at:] or ["train"])])
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except RendezvousError as missed:
        said = f"{type(missed).__name__} {missed}".strip()
        print(f"capsfusion: the other nodes did not come ({said}): do they run, and do they resolve each other?")
        return OTHERS_MISSING
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
