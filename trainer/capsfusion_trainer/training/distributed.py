"""The ranks of a run: a single process, or those that torchrun (or a PyTorchJob) started."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from capsfusion_etl.errors import InputError
from torch._C._distributed_c10d import HashStore

T = TypeVar("T")
R = TypeVar("R")
_HEARTBEAT_S = 1.0


@dataclass(frozen=True, slots=True)
class World:
    """This process's rank, the world size, and this rank's device."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes the files that are written once."""
        return self.rank == 0

    def all_reduce(self, *values: float) -> list[float]:
        """Return the sum of each value over the ranks."""
        if self.size == 1:
            return [float(v) for v in values]
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return [float(v) for v in sums]

    def all_gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in order of rank."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0."""
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def together(self, work: Callable[[], T], say: Callable[[], None] = lambda: None) -> T:
        """Run `work` on every rank, and return its result once all ranks are done, however long it takes.

        A plain collective would fail after `timeout_s`; here the ranks tell each other every second that they work.

        Args:
            work: Runs in a thread, without collectives.
            say: Called on each rank about once a second until all are done.

        Raises:
            Exception: The error of the first rank whose work failed, on every rank.
        """

        def run() -> T:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)  # each thread has its own
            return work()

        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(run)
            while True:
                wait([running], timeout=_HEARTBEAT_S)
                if self.all_reduce(running.done())[0] == self.size:
                    break
                say()
        error = running.exception()
        errors = [error for error in self.all_gather(_portable(error)) if error is not None]
        if errors:
            raise error or errors[0]
        return running.result()

    def spread(self, items: Sequence[T], work: Callable[[Sequence[T]], Iterable[R]]) -> list[R]:
        """Return the result of `work` for each item, in order. Each rank works on its share.

        Raises:
            Exception: As `together`.
        """
        shares = self.all_gather(self.together(lambda: list(work(items[self.rank :: self.size]))))
        return [shares[at % self.size][at // self.size] for at in range(len(items))]


def _portable(error: BaseException | None) -> BaseException | None:
    """Return an error that other ranks can read: one of another library may not be picklable."""
    if error is None or isinstance(error, InputError | OSError):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


@contextmanager
def init_distributed(timeout_s: int = 600) -> Iterator[World]:
    """Join the process group and leave it at the end; within another such block, use its group.

    If a rank is lost, collectives fail after `timeout_s` seconds.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size(), device)
        return
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    timeout = timedelta(seconds=timeout_s)
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=timeout)
    else:  # a group of one, so that all code may use collectives
        dist.init_process_group(backend, timeout=timeout, store=HashStore(), rank=0, world_size=1)
    if cuda:
        torch.cuda.set_device(device)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
