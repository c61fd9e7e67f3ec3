"""Estimate the memory of a rank before training: `capsfusion train --dry-run`.

The model is built as shapes only. Its saved activations are counted by running the forward pass on fake tensors, which
have shapes but no memory, with the widths, precision and recomputation of the run.
"""

from dataclasses import dataclass
from typing import Any

import torch
from capsfusion_etl.errors import InputError
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.data.order import largest_share
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.training.placement import KEPT, blocks, recompute

MEMORY = {"H200": 141e9, "H100": 80e9, "A100": 80e9, "L40S": 48e9, "L4": 24e9}  # bytes, from the data sheets
_RESERVED = 2e9  # of a GPU: CUDA context, libraries, communication buffers
# What is in use for a moment in the backward pass, and what the allocator cannot use again: found by comparing with
# real runs (benchmarks/memory.py).
_SLACK = 1.15
_GATHERED = 3  # blocks of a sharded model that are whole at a time: in use, prefetched, and their gradient


@dataclass(frozen=True, slots=True)
class Estimate:
    """Numbers of parameters of the parts, and bytes of a rank.

    Attributes:
        parameters: Parameters of each part, and of all that is trained.
        ranks: Number of ranks.
        micro_batch_size: Pairs at once.
        weights: Bytes of the weights, with some blocks gathered if they are sharded.
        gradients: Bytes of the gradients.
        optimizer: Bytes of AdamW's two moments.
        casts: Bytes of the weights' copies in bfloat16 that autocast keeps for the backward pass.
        activations: Bytes of what the forward pass saves for the backward pass.
        per_pair: The part of `activations` that each further pair adds.
        logits: Bytes of the logits in float32 and their gradient, which exist for a moment.
    """

    parameters: dict[str, int]
    ranks: int
    micro_batch_size: int
    weights: float
    gradients: float
    optimizer: float
    casts: float
    activations: float
    per_pair: float
    logits: float

    @property
    def total(self) -> float:
        """Bytes of a rank at the peak, with slack, but without those that are reserved on a GPU."""
        parts = (self.weights, self.gradients, self.optimizer, self.casts, self.activations, self.logits)
        return _SLACK * sum(parts)

    def table(self, gpu: str) -> str:
        """Return a table for people, and whether a rank fits a GPU.

        Raises:
            InputError: The GPU is unknown.
        """
        if gpu not in MEMORY:
            raise InputError(f"--gpu: {gpu!r} is unknown; known are {', '.join(MEMORY)}")
        lines = [f"{name:22s} {count / 1e6:10.1f} M parameters" for name, count in self.parameters.items()]
        for name in ("weights", "gradients", "optimizer", "casts", "activations", "logits"):
            lines.append(f"{name:22s} {getattr(self, name) / 1e9:10.2f} GB")
        lines[-2] += f", {self.per_pair / 1e6:.1f} MB a pair, {self.micro_batch_size} pairs at once"
        need, there = self.total + _RESERVED, MEMORY[gpu]
        verdict = "fits" if need <= there else "does not fit: lower trainer.micro_batch_size or set trainer.recompute"
        lines.append(
            f"{'a rank of ' + str(self.ranks):22s} {need / 1e9:10.2f} GB: {verdict} ({gpu}, {there / 1e9:.0f} GB)"
        )
        return "\n".join(lines)


def estimate(config: TrainerConfig, *, ranks: int) -> Estimate:
    """Return the estimate for the rank with the largest share of a step.

    Raises:
        InputError: A model that the config names cannot be loaded; only its configuration is read.
    """
    with torch.device("meta"):
        model = CaptionModel(config, weights=False)
    trained = [p for p in model.parameters() if p.requires_grad]
    share = largest_share(config.global_batch_size, config.lanes, ranks)
    micro = min(config.micro_batch_size or share, share)
    over = (config.shard_size or ranks) if config.shard else 1
    gathered = _GATHERED * max(map(_bytes, (b for _, _, b in blocks(model)))) if config.shard else 0
    logits = 2 * 4 * micro * config.max_tokens * model.llm.config.vocab_size
    weights, gradients = _bytes(model) / over + gathered, sum(p.numel() * 4 for p in trained) / over
    parts = {name: _count(getattr(model, name)) for name in ("vision", "bridge", "llm")}
    fixed, per_pair = _saved(model, config)
    return Estimate(
        {**parts, "trained": sum(p.numel() for p in trained)}, ranks, micro, weights, gradients, 2 * gradients,
        0.0 if config.shard else fixed, per_pair * micro, per_pair, logits,
    )  # fmt: skip


def _saved(model: CaptionModel, config: TrainerConfig) -> tuple[float, float]:
    """Return the bytes saved for the backward pass whatever the batch, and those that each pair adds."""
    recompute(model, config)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        one, two = (saved_bytes(model, pairs) for pairs in (2, 4))
    per_pair = (two - one) / 2
    return max(one - 2 * per_pair, 0.0), per_pair


def saved_bytes(model: CaptionModel, pairs: int) -> int:
    """Return the bytes that a forward pass saves for the backward pass, besides the weights themselves."""
    known = {_storage(p) for p in [*model.parameters(), *model.buffers()]}
    found: dict[int, int] = {}
    kept: list[Tensor] = []  # so that no storage is reused

    def pack(tensor: Tensor) -> Tensor:
        storage = _storage(tensor)
        if storage not in known:
            found[storage] = tensor.untyped_storage().nbytes()
            kept.append(tensor)
        return tensor

    size, longest = model.image_size, model.config.max_tokens
    images = torch.zeros(pairs, 3, size, size, dtype=torch.uint8)
    tokens = torch.zeros(pairs, longest, dtype=torch.int64)
    hooks, results = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), _KeptResults(model)
    with hooks, model.precision(), results:
        model(images, tokens, torch.ones(pairs)).sum()
    return sum(found.values()) + results.bytes


class _KeptResults(TorchDispatchMode):
    """Counts the results that recompute="selective" keeps, which are no saved tensors."""

    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        self.bytes, self._inside = 0, False
        for module in model.modules() if model.config.recompute == "selective" else ():
            if isinstance(module, CheckpointWrapper):
                module.register_forward_pre_hook(lambda *_: self._enter(inside=True))
                module.register_forward_hook(lambda *_: self._enter(inside=False))

    def _enter(self, *, inside: bool) -> None:
        self._inside = inside

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self._inside and func in KEPT:
            self.bytes += sum(t.nbytes for t in tree_leaves(out) if isinstance(t, Tensor))
        return out


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
