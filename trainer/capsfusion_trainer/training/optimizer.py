"""AdamW and its learning rate."""

import math

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from capsfusion_trainer.config import TrainerConfig


def adamw(model: nn.Module, config: TrainerConfig) -> AdamW:
    """Return AdamW over the trained weights: those of the vision tower and the others, with and without decay."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            groups.setdefault((name.startswith("vision."), _decays(name, weight)), []).append(weight)
    found = [
        {"params": weights, "weight_decay": config.weight_decay if decays else 0.0, "of_vision": of_vision}
        for (of_vision, decays), weights in groups.items()
    ]
    # On CPUs the default is a loop over the weights in Python, which takes a fifth of a small model's step.
    cpu = all(weight.device.type == "cpu" for weights in groups.values() for weight in weights)
    return AdamW(found, lr=config.peak_lr, betas=(config.beta1, config.beta2), fused=True if cpu else None)


def set_rate(optimizer: Optimizer, rate: float, config: TrainerConfig) -> None:
    """Set the learning rate; that of the vision tower is in the proportion of `vision_lr` to `peak_lr`."""
    scale = 1.0 if config.vision_lr is None else config.vision_lr / config.peak_lr
    for group in optimizer.param_groups:
        group["lr"] = rate * (scale if group["of_vision"] else 1.0)


def learning_rate(config: TrainerConfig, step: int, total: int) -> float:
    """Return the learning rate of a step: linear warm-up to peak_lr, then cosine decay to min_lr."""
    if step < config.warmup_steps:
        return config.peak_lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, total - config.warmup_steps - 1)
    return config.min_lr + (config.peak_lr - config.min_lr) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _decays(name: str, weight: Tensor) -> bool:
    """Return whether weight decay applies: to matrices, but not to queries, markers and T5's relative positions."""
    return weight.ndim > 1 and not name.endswith(("queries", "markers", "relative_attention_bias.weight"))
