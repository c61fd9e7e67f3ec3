"""Training settings: a frozen dataclass, and recipes that are named functions returning one."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from capsfusion_etl.errors import InputError
from capsfusion_etl.settings import section


@dataclass(frozen=True, slots=True)
class TrainerConfig:
    """One training run. Sizes: `image_size` pixels, `max_tokens` bytes of caption (the tokenizer is byte-level).

    Learning rate: linear warm-up over `warmup_steps` to `peak_lr`, then cosine to `min_lr` (paper, section 4.1).
    """

    recipe: str = "micro_cpu"
    steps: int = 60
    global_batch_size: int = 8
    peak_lr: float = 3e-4
    min_lr: float = 3e-5
    warmup_steps: int = 5
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    seed: int = 0
    checkpoint_every: int = 20
    image_size: int = 64
    patch_size: int = 16
    vision_width: int = 96
    vision_layers: int = 3
    bridge_layers: int = 2
    queries: int = 32
    llm_width: int = 128
    llm_layers: int = 3
    heads: int = 4
    max_tokens: int = 160


def micro_cpu() -> TrainerConfig:
    """All the parts of the paper's model, small enough for two cores and a minute."""
    return TrainerConfig(recipe="micro_cpu", peak_lr=3e-3, min_lr=3e-4)


RECIPES: dict[str, Callable[[], TrainerConfig]] = {"micro_cpu": micro_cpu}


def of_settings(settings: dict[str, Any]) -> TrainerConfig:
    """The recipe that the `trainer` section names, with the section's other keys on top.

    Raises:
        InputError: no such recipe, an unknown key or a wrong type.
    """
    given = settings.get("trainer", {})
    name = given.get("recipe", "micro_cpu")
    if name not in RECIPES:
        raise InputError(f"trainer.recipe: there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    return section({"trainer": {**asdict(RECIPES[name]()), **given}}, "trainer", TrainerConfig)
