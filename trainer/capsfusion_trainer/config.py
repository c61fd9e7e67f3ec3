"""Training settings: a frozen dataclass, and recipes that are named functions returning one."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from capsfusion_etl.errors import InputError
from capsfusion_etl.settings import section

# Settings that change how a run goes, and nothing of what comes out: a run may go on with others.
_HOW = ("checkpoint_every", "keep", "workers", "start_method", "timeout_s", "compile", "failed_gate", "feature_cache")


@dataclass(frozen=True, slots=True)
class TrainerConfig:
    """One training run.

    Data: `global_batch_size` pairs a step over all ranks; `epochs` over the train split, or `steps` if set. `lanes`:
    see `order`. `max_tokens` of a caption.
    Optimizer: AdamW; linear warm-up over `warmup_steps` to `peak_lr`, then cosine to `min_lr` (paper, section 4.1).
    Model: `vision_model` and `llm_model` name a folder or a hub model; null builds a small one, of random weights and
    the sizes below. `image_size` null: the vision model's own. `freeze_llm` false is the paper's "fired".
    Machine: `micro_batch_size` pairs a rank at once (null: all of a step); `shard` spreads weights over the ranks
    (FSDP2) instead of copying them (DDP); `workers` processes a rank read pictures; `timeout_s` for other ranks.
    `feature_cache`: a folder that keeps what a frozen vision tower sees, half a megabyte a picture for ViT-L.
    Watch: `spike_factor` times the median of the last losses stops the run (0: never); NaN always does.
    """

    recipe: str = "micro_cpu"
    steps: int | None = None
    epochs: float = 1.0
    global_batch_size: int = 8
    lanes: int = 256
    max_tokens: int = 160
    seed: int = 0

    peak_lr: float = 3e-4
    min_lr: float = 3e-5
    warmup_steps: int = 5
    weight_decay: float = 0.05
    clip_norm: float = 1.0

    vision_model: str | None = None
    llm_model: str | None = None
    image_size: int | None = None
    freeze_vision: bool = False
    freeze_llm: bool = False
    bridge_layers: int = 2
    bridge_heads: int = 4
    queries: int = 32
    vision_width: int = 96
    vision_layers: int = 3
    patch_size: int = 16
    llm_width: int = 128
    llm_layers: int = 3
    heads: int = 4

    micro_batch_size: int | None = None
    bf16: bool = False
    compile: bool = False
    shard: bool = False
    workers: int = 0
    start_method: str = "spawn"
    timeout_s: int = 600
    feature_cache: str | None = None

    checkpoint_every: int = 20
    keep: int = 2
    spike_factor: float = 10.0
    failed_gate: bool = False

    def what(self) -> dict[str, Any]:
        """The settings that the result depends on."""
        return {name: value for name, value in asdict(self).items() if name not in _HOW}


def micro_cpu() -> TrainerConfig:
    """All the parts of the paper's model, small enough for two cores and a minute."""
    return TrainerConfig(recipe="micro_cpu", steps=60, image_size=64, peak_lr=3e-3, min_lr=3e-4)


def emu_7b_10m() -> TrainerConfig:
    """The paper's model on 10M pairs: LLaMA-2-7B, frozen, EVA-01-CLIP-g, batch 8,192 (section 4.1)."""
    return TrainerConfig(
        recipe="emu_7b_10m", global_batch_size=8192, max_tokens=64, warmup_steps=500,
        vision_model="timm/eva_giant_patch14_clip_224.laion400m_s11b_b41k", llm_model="meta-llama/Llama-2-7b-hf",
        image_size=224, freeze_llm=True, bridge_layers=12, bridge_heads=16, micro_batch_size=64, bf16=True, workers=8,
        checkpoint_every=200, keep=3, spike_factor=3.0,
    )  # fmt: skip


def emu_7b_50m() -> TrainerConfig:
    """The same on 50M pairs."""
    return _scaled(emu_7b_10m(), "emu_7b_50m", warmup_steps=1000)


def emu_7b_100m() -> TrainerConfig:
    """The same on 100M pairs."""
    return _scaled(emu_7b_10m(), "emu_7b_100m", warmup_steps=2000)


def emu_7b_fired() -> TrainerConfig:
    """The language model trained, too, its weights spread over the ranks."""
    return _scaled(emu_7b_10m(), "emu_7b_fired", freeze_llm=False, shard=True, micro_batch_size=16)


def _scaled(config: TrainerConfig, recipe: str, **changed: Any) -> TrainerConfig:
    return TrainerConfig(**(asdict(config) | {"recipe": recipe} | changed))


RECIPES: dict[str, Callable[[], TrainerConfig]] = {
    make.__name__: make for make in (micro_cpu, emu_7b_10m, emu_7b_50m, emu_7b_100m, emu_7b_fired)
}


def of_settings(settings: dict[str, Any]) -> TrainerConfig:
    """The recipe that the `trainer` section names, with the section's other keys on top.

    Raises:
        InputError: no such recipe, an unknown key, a wrong type or a value that makes no sense.
    """
    given = settings.get("trainer", {})
    name = given.get("recipe", "micro_cpu")
    if name not in RECIPES:
        raise InputError(f"trainer.recipe: there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    config = section({"trainer": {**asdict(RECIPES[name]()), **given}}, "trainer", TrainerConfig)
    for key in ("global_batch_size", "lanes", "max_tokens", "queries", "checkpoint_every", "keep"):
        if getattr(config, key) < 1:
            raise InputError(f"trainer.{key}: must be 1 or more")
    if config.feature_cache is not None and (config.shard or not config.freeze_vision):
        raise InputError("trainer.feature_cache: needs freeze_vision, and no shard")
    if config.start_method not in ("spawn", "fork", "forkserver"):
        raise InputError("trainer.start_method: one of spawn, fork, forkserver")
    return config
