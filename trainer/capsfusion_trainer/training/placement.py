"""Build the model once and place it on the ranks: replicated (DDP) or sharded (FSDP2), some of it recomputed."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from capsfusion_etl.errors import InputError
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.training.distributed import World

Blocks = nn.ModuleList | nn.Sequential
_aten = torch.ops.aten
# What recompute="selective" keeps: the operations that cost most to repeat.
KEPT = {
    _aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default, _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
}  # fmt: skip


def place(config: TrainerConfig, world: World) -> tuple[CaptionModel, nn.Module]:
    """Return the model, and its form that the ranks run: the same, or replicated by DDP.

    Only the first rank loads the weights; the others build shapes and receive their weights on their device. So a run
    needs the host memory of one model, not of one for each rank.

    Raises:
        InputError: The model cannot be loaded, or the number of ranks is no multiple of `shard_size`.
    """
    model = world.together(lambda: _built(config, world))  # a download may take longer than the ranks' time-out
    recompute(model, config)
    if config.compile:  # block by block: equal blocks share one compilation
        for _, _, block in blocks(model):
            block.compile()
    if config.shard:
        _shard(model, config, world)
        return model, model
    _move(model, world.device)
    if world.size == 1:
        return model, model
    # A pretrained tower may have weights that do not affect its last hidden state.
    foreign = config.vision_model is not None and not config.freeze_vision
    return model, DistributedDataParallel(model, find_unused_parameters=foreign, gradient_as_bucket_view=True)


def _built(config: TrainerConfig, world: World) -> CaptionModel:
    if world.first:
        return CaptionModel(config)
    with torch.device("meta"):
        shapes = CaptionModel(config, weights=False)
    # Moving shapes to a device unties embeddings and output layer; models that tie them are small.
    return CaptionModel(config) if shapes.llm.config.tie_word_embeddings else shapes


def _move(model: CaptionModel, device: torch.device) -> None:
    """Move a model to a device; one of shapes gets memory there, and DDP or `_shard` fills it."""
    if model.device.type == "meta":
        model.to_empty(device=device)
    else:
        model.to(device)


def _shard(model: CaptionModel, config: TrainerConfig, world: World) -> None:
    """Shard the weights over the ranks, block by block."""
    short = torch.bfloat16 if config.bf16 else None
    policy = MixedPrecisionPolicy(param_dtype=short, reduce_dtype=torch.float32)
    mesh, tied = _mesh(config, world), model.llm.config.tie_word_embeddings
    weights: dict[str, Any] = {}
    fixed = dict(model.named_buffers())  # some are not part of the state, such as rotary frequencies
    if tied or world.size == 1:
        model.to(world.device)
    elif world.first:
        weights = model.state_dict()
        model.to("meta")
    for part in [*(block for _, _, block in blocks(model)), model]:
        fully_shard(part, mesh=mesh, mp_policy=policy)
    if tied or world.size == 1:
        return
    model.to_empty(device=world.device)
    set_model_state_dict(
        model, weights, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, cpu_offload=False)
    )
    for name, buffer in model.named_buffers():
        if world.first:
            buffer.copy_(fixed[name])
        dist.broadcast(buffer, src=0)


def _mesh(config: TrainerConfig, world: World) -> DeviceMesh:
    size = config.shard_size or world.size
    if world.size % size:
        raise InputError(f"trainer.shard_size: {world.size} ranks are no multiple of {size}")
    if size == world.size:
        return init_device_mesh(world.device.type, (size,))
    return init_device_mesh(world.device.type, (world.size // size, size), mesh_dim_names=("replicate", "shard"))


def release(model: nn.Module) -> None:
    """Free a DDP model's references to the process group before the group is destroyed.

    Otherwise the model would be the group's last owner; destroying the group then waits, holding the GIL, for a thread
    that needs the GIL.
    """
    if isinstance(model, DistributedDataParallel):
        del model.logger, model.reducer


def blocks(model: CaptionModel) -> Iterator[tuple[Blocks, int, nn.Module]]:
    """Yield the repeated blocks of the three parts: each with its place in the outermost list of several modules."""
    for part in (model.vision, model.bridge, model.llm):
        lists = [m for m in part.modules() if isinstance(m, nn.ModuleList | nn.Sequential) and _repeats(m)]
        for at, block in enumerate(lists[0] if lists else ()):
            yield lists[0], at, block


def _repeats(modules: Blocks) -> bool:
    return len(modules) > 1 and len({type(module) for module in modules}) == 1


def recompute(model: CaptionModel, config: TrainerConfig) -> None:
    """Wrap the blocks through which gradients pass, so that their activations are recomputed in the backward pass."""
    if config.recompute == "none":
        return
    how: dict[str, Any] = {}
    if config.recompute == "selective":
        how = {"context_fn": partial(create_selective_checkpoint_contexts, _keeps)}
    frozen = {id(m) for m in model.vision.modules()} if config.freeze_vision else set()
    for container, at, block in list(blocks(model)):
        if id(block) not in frozen:
            container[at] = checkpoint_wrapper(block, **how)


def _keeps(context: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def sync_in_last(model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Return a context for a backward pass: replicas exchange gradients only in the last micro-batch of a step.

    Shards exchange them in each, since a rank does not hold the gradients of the whole model.
    """
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()
