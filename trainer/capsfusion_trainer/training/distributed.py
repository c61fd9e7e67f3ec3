"""The ranks of a run: a single process, or those that torchrun (or a PyTorchJob) started."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.model.caption_model import CaptionModel


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


@contextmanager
def init_distributed(timeout_s: int) -> Iterator[World]:
    """Join the process group and leave it at the end. If a rank is lost, collectives fail after `timeout_s` seconds."""
    cuda = torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    timeout = timedelta(seconds=timeout_s)
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=timeout)
    else:  # a group of one, so that all code may use collectives
        dist.init_process_group(backend, timeout=timeout, store=HashStore(), rank=0, world_size=1)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def distribute(model: CaptionModel, config: TrainerConfig, world: World) -> nn.Module:
    """Return the model with its weights sharded (FSDP2) or replicated (DDP) over the ranks; for one rank, unchanged.

    `shard` applies to a single rank as well.
    """
    model.to(world.device)
    if config.compile:  # block by block: equal blocks share one compilation
        for part in blocks(model):
            part.compile()
    if config.shard:
        short = torch.bfloat16 if config.bf16 else None
        policy = MixedPrecisionPolicy(param_dtype=short, reduce_dtype=torch.float32)
        for part in [*blocks(model), model]:
            fully_shard(part, mp_policy=policy)
        return model
    if world.size == 1 or not any(p.requires_grad for p in model.parameters()):
        return model
    # A pretrained tower may have weights that do not affect its last hidden state.
    foreign = config.vision_model is not None and not config.freeze_vision
    return DistributedDataParallel(model, find_unused_parameters=foreign)


def release(model: nn.Module) -> None:
    """Free a DDP model's references to the process group before the group is destroyed.

    Otherwise the model would be the group's last owner; destroying the group then waits, holding the GIL, for a thread
    that needs the GIL.
    """
    if isinstance(model, DistributedDataParallel):
        del model.logger, model.reducer


def blocks(model: CaptionModel) -> list[nn.Module]:
    """Return the repeated blocks of the three parts: the outermost list of several modules in each."""
    found: list[nn.Module] = []
    for part in (model.vision, model.bridge, model.llm):
        lists = [m for m in part.modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
        found += list(lists[0]) if lists else []
    return found


def sync_in_last(model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Return a context for a backward pass; gradients are exchanged only in the last micro-batch of a step."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
        return nullcontext()
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()
