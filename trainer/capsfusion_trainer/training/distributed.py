"""The ranks of a run: one, or those that torchrun (or a PyTorchJob) started."""

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
    """This process's rank among `size`, and the device that it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Does this rank write what is written once?"""
        return self.rank == 0

    def all_reduce(self, *values: float) -> list[float]:
        """Sums over the ranks."""
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return [float(v) for v in sums]

    def all_gather(self, value: Any) -> list[Any]:
        """Every rank's value."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def broadcast(self, value: Any) -> Any:
        """The first rank's value."""
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


@contextmanager
def init_distributed(timeout_s: int) -> Iterator[World]:
    """Meet the other ranks; leave them in peace at the end. A rank that is gone fails the others after `timeout_s`."""
    cuda = torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    timeout = timedelta(seconds=timeout_s)
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=timeout)
    else:  # a group of one, so that there is one way to do things
        dist.init_process_group(backend, timeout=timeout, store=HashStore(), rank=0, world_size=1)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def distribute(model: CaptionModel, config: TrainerConfig, world: World) -> nn.Module:
    """The model over the ranks: its weights sharded (FSDP2) or copied (DDP); as it is for a single rank."""
    model.to(world.device)
    if config.compile:  # block by block: one is compiled, its likes reuse it
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
    # A tower that others made may hold weights that its last hidden state does not depend on.
    foreign = config.vision_model is not None and not config.freeze_vision
    return DistributedDataParallel(model, find_unused_parameters=foreign)


def release(model: nn.Module) -> None:
    """Free what a spread model holds of the group, while the group lives.

    Else it would be the group's last owner, whose end waits, holding the interpreter, for a thread that needs it.
    """
    if isinstance(model, DistributedDataParallel):
        del model.logger, model.reducer


def blocks(model: CaptionModel) -> list[nn.Module]:
    """The repeated blocks of the three parts, the largest lists of modules in each."""
    found: list[nn.Module] = []
    for part in (model.vision, model.bridge, model.llm):
        lists = [m for m in part.modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
        found += list(lists[0]) if lists else []
    return found


def sync_in_last(model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Gradients are exchanged in the last micro-batch of a step only."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
        return nullcontext()
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()
