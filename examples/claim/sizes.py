"""How large a study is, and the settings that all of its models share."""

from dataclasses import dataclass

STRATEGIES = ("fused", "synthetic", "raw", "mixed", "language-rewrite")


@dataclass(frozen=True, slots=True)
class Study:
    """Sizes of a study.

    Attributes:
        pairs: Pairs of the world; a few are lost to the filters, as file names instead of texts.
        scales: Numbers of pairs seen in training, multiples of the batch.
        seeds: Training runs of each cell.
        test: Pictures that all models are scored on.
        others: Pictures of the captioner's own training.
        captioner_steps: Steps of its training.
        llm_steps: Steps in which the language model learns the texts alone.
        strategies: Those that are compared; the oracle is added to them.
        oracle_read: Whether the language model learns the texts of the oracle, too (the amendment in docs/claim.md).
    """

    pairs: int
    scales: tuple[int, ...]
    seeds: tuple[int, ...]
    test: int
    others: int
    captioner_steps: int
    llm_steps: int
    strategies: tuple[str, ...] = STRATEGIES
    oracle_read: bool = True


# The same for every strategy; the rate was tuned on one seed of raw at the smallest scale (docs/claim.md).
TRAINER: dict[str, object] = {
    "vision_model": "efficientnet-lite0", "freeze_vision": True, "image_size": 96, "max_tokens": 64, "queries": 4,
    "bridge_layers": 1, "bridge_width": 128, "bridge_heads": 4, "llm_width": 128, "llm_layers": 2, "heads": 4,
    "global_batch_size": 4, "lanes": 4, "peak_lr": 4e-3, "min_lr": 4e-4, "warmup_steps": 20,
    "checkpoint_every": 10_000, "keep": 1, "spike_factor": 0.0,
}  # fmt: skip
VOCABULARY = 2048  # tokens
STUDIES = {
    "tiny": Study(70, (32, 64), (0,), 24, 128, 20, 20, ("fused", "synthetic", "raw")),
    "small": Study(
        4_000, (960, 3_840), (0, 1, 2), 240, 6_000, 1_200, 2_000, ("fused", "synthetic", "raw", "mixed"), False
    ),
    "day": Study(16_800, (1_024, 4_096, 16_384), (0, 1, 2), 480, 6_000, 1_200, 4_000),
    "night": Study(66_800, (1_024, 4_096, 16_384, 65_536), (0, 1, 2, 3, 4), 480, 6_000, 1_200, 8_000),
}
