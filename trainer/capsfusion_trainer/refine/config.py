"""Settings of a fine-tuning run, and its recipes, named functions that return them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from capsfusion_etl.errors import InputError
from capsfusion_etl.settings import check_ranges, parse_yaml, section


@dataclass(frozen=True, slots=True)
class RefineConfig:
    """Settings of one fine-tuning run. `lora_rank` 0 trains every weight; `max_tokens` covers prompt and completion.

    `batch_size`: rows of a step over all ranks. A rank processes at most `micro_batch_size` at once, null: its share.

    `adapter`: LoRA adapter to go on from, shipped or a folder; null: a new one.
    `swaps`: also train on the triplets with other names and numbers (see `swaps`).
    `held_out`: share of the triplets, by hash of their pair_id, that is scored and never trained on. Every
    `evaluate_every` steps the model fuses `evaluate_rows` of them, and the judge reads its captions: the checkpoint
    whose accepted captions keep most facts is chosen (see `selection`), and the run stops early after `patience`
    evaluations without a better one. `choose_by` "loss" chooses by the held-out loss instead, without fusing.
    `min_recall`: see `triplets.teachable`.
    """

    recipe: str = "smollm2_135m_cpu"
    prompt: str = "compact-v1"
    adapter: str | None = None
    max_rows: int | None = None
    swaps: bool = False
    min_recall: float = 0.0
    held_out: float = 0.1
    epochs: float = 1.0
    batch_size: int = 8
    micro_batch_size: int | None = None
    learning_rate: float = 4e-4
    warmup_share: float = 0.03
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    max_tokens: int = 256
    evaluate_every: int = 100
    evaluate_rows: int = 256
    choose_by: str = "kept"
    patience: int = 3
    seed: int = 0
    bf16: bool = False
    fsdp: bool = False

    def __post_init__(self) -> None:
        if self.adapter is not None and not self.lora_rank:
            raise ValueError("adapter: lora_rank 0 trains every weight, so there is no adapter to go on from")
        if self.choose_by not in ("kept", "loss"):
            raise ValueError("choose_by: must be kept or loss")

    def divided(self, ranks: int) -> tuple[int, int]:
        """Return how many rows each rank processes at once, and how many times in a step.

        Raises:
            InputError: They do not make up `batch_size`.
        """
        micro = min(self.micro_batch_size or self.batch_size, max(self.batch_size // ranks, 1))
        if self.batch_size % (ranks * micro):
            raise InputError(
                f"refine.batch_size: {self.batch_size} rows are not divided by {ranks} ranks times {micro} rows at "
                "once: choose another micro_batch_size"
            )
        return micro, self.batch_size // (ranks * micro)


def smollm2_135m_cpu() -> RefineConfig:
    """Return the recipe for SmolLM2-135M-Instruct: about 40 minutes on two cores for 3,000 triplets."""
    return RefineConfig(min_recall=0.7, swaps=True, epochs=1.5)


def llama2_13b() -> RefineConfig:
    """Return the recipe of CapsFus-LLaMA: all of LLaMA-2-13B, the paper's prompt, sharded over GPUs (FSDP).

    Batch 128, rate 2e-5 and 2 epochs are those of Alpaca's code, which the authors used (baaivision/CapsFusion#6).
    """
    return RefineConfig(
        recipe="llama2_13b", prompt="paper-v1", lora_rank=0, batch_size=128, micro_batch_size=16, learning_rate=2e-5,
        epochs=2.0, max_tokens=1024, evaluate_every=500, evaluate_rows=512, bf16=True, fsdp=True,
    )  # fmt: skip


RECIPES: dict[str, Callable[[], RefineConfig]] = {"smollm2_135m_cpu": smollm2_135m_cpu, "llama2_13b": llama2_13b}


def of_assignments(recipe: str, assignments: list[str]) -> RefineConfig:
    """Return a recipe, overridden by `key=value` assignments.

    Raises:
        InputError: The recipe or a key is unknown, or a value has the wrong type.
    """
    if recipe not in RECIPES:
        raise InputError(f"--recipe: there is no recipe {recipe!r}; the recipes are {', '.join(RECIPES)}")
    values = asdict(RECIPES[recipe]())
    for assignment in assignments:
        key, _, value = assignment.removeprefix("refine.").partition("=")
        values[key] = parse_yaml(value, f"--set {key}: {value!r}")
    config = section({"refine": values}, "refine", RefineConfig)
    check_ranges(
        "refine",
        config,
        at_least_one=(
            "batch_size", "micro_batch_size", "max_rows", "max_tokens", "evaluate_every", "evaluate_rows", "patience"
        ),
        not_negative=(
            "learning_rate", "warmup_share", "lora_rank", "lora_alpha", "lora_dropout", "min_recall", "held_out", "seed"
        ),
        positive=("epochs",),
    )  # fmt: skip
    if config.min_recall > 1:
        raise InputError(f"refine.min_recall: must be 1 or less, got {config.min_recall}")
    for key in ("lora_dropout", "held_out"):
        if getattr(config, key) >= 1:
            raise InputError(f"refine.{key}: must be below 1, got {getattr(config, key)}")
    return config
