"""Training settings: a frozen dataclass, and the recipes, named functions that return one."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from capsfusion_etl.errors import InputError
from capsfusion_etl.settings import check_ranges, section

# Settings that a resumed run may change: the result depends on none of them, but for rounding.
_HOW = (
    "checkpoint_every", "keep", "workers", "start_method", "timeout_s", "compile", "failed_gate", "feature_cache",
    "spike_factor", "micro_batch_size", "shard", "shard_size", "recompute",
)  # fmt: skip


_AT_LEAST_ONE = (
    "steps", "global_batch_size", "lanes", "max_tokens", "image_size", "bridge_layers", "bridge_heads", "bridge_width",
    "queries", "vision_width", "vision_layers", "patch_size", "llm_width", "llm_layers", "heads", "micro_batch_size",
    "timeout_s", "checkpoint_every", "keep",
)  # fmt: skip
_NOT_NEGATIVE = (
    "seed", "peak_lr", "min_lr", "vision_lr", "warmup_steps", "beta1", "beta2", "weight_decay", "workers",
    "spike_factor",
)  # fmt: skip
_POSITIVE = ("epochs", "clip_norm")


@dataclass(frozen=True, slots=True)
class TrainerConfig:
    """Settings of one training run.

    Data: a step takes `global_batch_size` pairs over all ranks. A run takes `steps` steps or, if null, `epochs` epochs
    of the train split. `lanes`: see `data.order`. `max_tokens`: captions are cut at this length. `sorted_pairs` holds
    the split in memory, ordered by pair_id: runs on snapshots of the same pairs then see them in the same order.

    Optimizer: AdamW with a linear warm-up over `warmup_steps` to `peak_lr`, then cosine decay to `min_lr` (CapsFusion,
    section 4.1). `vision_lr` is the peak of a trained vision tower; null takes `peak_lr`. `weight_decay` applies to
    matrices only: not to norms, biases, queries and markers.

    Model: `vision_model` and `llm_model` name a folder or a hub model; null builds a small one with random weights and
    the sizes below. The tower `efficientnet-lite0` comes from a package. `tokenizer` is the folder of the tokenizer of
    the small language model; null is one over bytes. `image_size` in pixels; null takes the vision model's own.
    `freeze_llm` false is the paper's "fired". `bridge_width` null is the width of the vision tower.

    Machine: a rank processes `micro_batch_size` pairs at once (null: its whole share of the step). `shard` shards the
    weights over the ranks (FSDP2) instead of replicating them (DDP): over `shard_size` ranks, such as those of a node,
    with a copy for each further group of ranks (HSDP); null: over all. `recompute` saves memory: "selective" recomputes
    all but the results of matrix products and attention in the backward pass, "all" whole blocks, "none" nothing.
    `workers` is the number of processes per rank that load images. Collectives fail after `timeout_s` seconds without
    the other ranks. `feature_cache` is a folder that caches the features of a frozen vision tower, half a megabyte per
    image for ViT-L.

    Monitoring: a checkpoint every `checkpoint_every` steps, of which the last `keep` stay. A loss above `spike_factor`
    times the median of the last losses stops the run (0: never); NaN always does. `failed_gate` also admits a snapshot
    that did not pass its quality gate.
    """

    recipe: str = "micro_cpu"
    steps: int | None = None
    epochs: float = 1.0
    global_batch_size: int = 8
    lanes: int = 256
    sorted_pairs: bool = False
    max_tokens: int = 160
    seed: int = 0

    peak_lr: float = 3e-4
    min_lr: float = 3e-5
    vision_lr: float | None = None
    warmup_steps: int = 5
    beta1: float = 0.9
    beta2: float = 0.98
    weight_decay: float = 0.05
    clip_norm: float = 1.0

    vision_model: str | None = None
    llm_model: str | None = None
    tokenizer: str | None = None
    image_size: int | None = None
    freeze_vision: bool = False
    freeze_llm: bool = False
    bridge_layers: int = 2
    bridge_heads: int = 4
    bridge_width: int | None = None
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
    shard_size: int | None = None
    recompute: str = "none"
    workers: int = 0
    start_method: str = "spawn"
    timeout_s: int = 600
    feature_cache: str | None = None

    checkpoint_every: int = 20
    keep: int = 2
    spike_factor: float = 10.0
    failed_gate: bool = False

    def what(self) -> dict[str, Any]:
        """Return the settings that the result depends on."""
        return {name: value for name, value in asdict(self).items() if name not in _HOW}


def micro_cpu() -> TrainerConfig:
    """Return the recipe of a small model with all the parts of the paper's: trains in a minute on two cores."""
    return TrainerConfig(recipe="micro_cpu", steps=60, image_size=64, peak_lr=3e-3, min_lr=3e-4)


def emu_7b_10m() -> TrainerConfig:
    """Return the paper's recipe for 10M pairs: LLaMA-2-7B and EVA-01-CLIP-g frozen, batch 8,192 (section 4.1).

    docs/train.md lists what the paper states and what is assumed.
    """
    return TrainerConfig(
        recipe="emu_7b_10m", global_batch_size=8192, max_tokens=64, warmup_steps=500,
        vision_model="timm/eva_giant_patch14_clip_224.laion400m", llm_model="meta-llama/Llama-2-7b-hf",
        image_size=224, freeze_vision=True, freeze_llm=True, bridge_layers=12, bridge_heads=12, bridge_width=768,
        micro_batch_size=64, bf16=True, compile=True, workers=8, checkpoint_every=200, keep=3, spike_factor=3.0,
    )  # fmt: skip


def emu_7b_50m() -> TrainerConfig:
    """Return `emu_7b_10m` with the warm-up for 50M pairs."""
    return _scaled(emu_7b_10m(), "emu_7b_50m", warmup_steps=1000)


def emu_7b_100m() -> TrainerConfig:
    """Return `emu_7b_10m` with the warm-up for 100M pairs."""
    return _scaled(emu_7b_10m(), "emu_7b_100m", warmup_steps=2000)


def emu_7b_tower() -> TrainerConfig:
    """Return `emu_7b_10m` with a vision tower that is trained, too, at a rate of its own."""
    return _scaled(emu_7b_10m(), "emu_7b_tower", freeze_vision=False, vision_lr=5e-5, micro_batch_size=16)


def emu_7b_fired() -> TrainerConfig:
    """Return `emu_7b_10m` with a trained language model and weights sharded over the ranks."""
    return _scaled(emu_7b_10m(), "emu_7b_fired", freeze_llm=False, shard=True, recompute="selective")


def _scaled(config: TrainerConfig, recipe: str, **changed: Any) -> TrainerConfig:
    return TrainerConfig(**(asdict(config) | {"recipe": recipe} | changed))


RECIPES: dict[str, Callable[[], TrainerConfig]] = {
    make.__name__: make for make in (micro_cpu, emu_7b_10m, emu_7b_50m, emu_7b_100m, emu_7b_tower, emu_7b_fired)
}


def of_settings(settings: dict[str, Any]) -> TrainerConfig:
    """Return the recipe that `trainer.recipe` names, overridden by the other keys of the `trainer` section.

    Raises:
        InputError: The recipe or a key is unknown, or a value has the wrong type, is out of range or contradicts
            another.
    """
    given = settings.get("trainer", {})
    name = given.get("recipe", "micro_cpu")
    if name not in RECIPES:
        raise InputError(f"trainer.recipe: there is no recipe {name!r}; the recipes are {', '.join(RECIPES)}")
    recipe = asdict(RECIPES[name]())
    if recipe["vision_model"] is None and given.get("vision_model"):
        recipe["image_size"] = None  # that of the small tower: another tower has its own
    config = section({"trainer": {**recipe, **given}}, "trainer", TrainerConfig)
    check_ranges("trainer", config, _AT_LEAST_ONE, _NOT_NEGATIVE, _POSITIVE, ("clip_norm", "spike_factor"))
    if config.feature_cache is not None and (config.shard or not config.freeze_vision):
        raise InputError("trainer.feature_cache: needs freeze_vision=true and shard=false")
    if config.start_method not in ("spawn", "fork", "forkserver"):
        raise InputError("trainer.start_method: must be spawn, fork or forkserver")
    if config.recompute not in ("none", "selective", "all"):
        raise InputError("trainer.recompute: must be none, selective or all")
    if config.vision_lr is not None and (config.freeze_vision or config.peak_lr <= 0):
        raise InputError("trainer.vision_lr: needs freeze_vision=false and a peak_lr above 0")
    if config.shard_size is not None and not (config.shard and config.shard_size > 1):
        raise InputError("trainer.shard_size: needs shard=true and 2 or more ranks")
    if config.tokenizer is not None and config.llm_model is not None:
        raise InputError("trainer.tokenizer: is that of the small language model; llm_model has its own")
    _check_sizes(config)
    return config


def _check_sizes(config: TrainerConfig) -> None:
    """Check that widths are multiples of their numbers of heads, and that an image has a patch."""
    widths = [("bridge_width", config.bridge_width, "bridge_heads", config.bridge_heads)]
    if config.vision_model is None:
        widths.append(("vision_width", config.vision_width, "heads", config.heads))
        size = config.image_size or config.patch_size
        if size < config.patch_size:
            raise InputError(f"trainer.image_size: {size} pixels are less than a patch of {config.patch_size}")
    if config.llm_model is None:
        widths.append(("llm_width", config.llm_width, "heads", config.heads))
    for name, width, of, heads in widths:
        if width is not None and width % heads:
            raise InputError(f"trainer.{name}: {width} is no multiple of {of}={heads}")
    if max(config.beta1, config.beta2) >= 1:
        raise InputError("trainer.beta1, trainer.beta2: must be below 1")
