"""Settings of the engines: what both kinds share, then a captioner's own and a fuser's own."""

from dataclasses import dataclass, field
from typing import Any

from capsfusion_etl.judge import Limits
from capsfusion_etl.strategies import STRATEGIES

BATCH_PRICE = 0.5  # of the batch API, beside the usual one
FALLBACKS = ("synthetic", "raw", "drop")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What every engine may be told; each reads what concerns it.

    `model` is a hub name, a folder, a GGUF file, or what a server calls its model; `revision` one of the hub. `dtype`:
    auto is bfloat16 on a GPU, on a CPU float32, int8 for `embedded`. `engine_args` go to vLLM's LLM or to
    from_pretrained as they are.
    Behind a network: `base_url`, `api_key_file` (else OPENAI_API_KEY), `concurrency` (requests in flight for each
    task), `timeout_s` of one request, `patience_s` until a server that is away or overrun ends the run, `structured`
    (answers as JSON by a schema, where the server can), and the prices of a million tokens. `image_tokens`: the most
    that a server may charge for a picture. `poll_s`: seconds between two looks at a batch.
    `gpu_executor`: executors of this stage alone (gpu, cores, memory, discoveryScript): CPU stages hold no GPU then.
    """

    model: str | None = None
    revision: str | None = None
    batch_size: int = 32
    max_new_tokens: int = 60
    num_beams: int = 1
    dtype: str = "auto"
    engine_args: dict[str, Any] = field(default_factory=dict)
    base_url: str | None = None
    api_key_file: str | None = None
    concurrency: int = 32
    timeout_s: float = 60.0
    patience_s: float = 600.0
    structured: bool = True
    usd_per_million_in: float = 0.0
    usd_per_million_out: float = 0.0
    image_tokens: int = 2_000
    poll_s: float = 30.0
    gpu_executor: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Dollars for so many tokens."""
        usual = (prompt_tokens * self.usd_per_million_in + completion_tokens * self.usd_per_million_out) / 1e6
        return usual * (BATCH_PRICE if getattr(self, "name", "") == "openai-batch" else 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionerConfig(EngineConfig):
    """`name` is one of CAPTIONERS; `instruction` is what a model that can be talked to is told."""

    name: str = "classifier"
    instruction: str = "Describe this picture in one plain sentence."


@dataclass(frozen=True, slots=True, kw_only=True)
class FuserConfig(EngineConfig):
    """`name` is one of FUSERS, `prompt` an asset in prompts/ (null: the engine's own), `adapter` one in adapters/
    or a folder (auto: the engine's own; null: the base model as it is). `sees_image`: the model is shown the picture.
    `chat`: is the prompt wrapped in the model's chat template (null: if it has one, and no adapter, which `capsfusion
    refine` trains on bare prompts).

    `strategies` are made side by side over the same pairs: fused, language-rewrite (the model sees the raw caption
    alone, `rewrite_prompt`), raw, synthetic, mixed (raw for `mixed_raw` of the pairs, by hash, else synthetic).

    `keep_facts`: bonus in logits for names and numbers of the raw caption that an answer has not said yet (for
    `embedded` and `transformers`; null: the engine's own).

    A refused answer is asked for again `retries` times by sampling at `temperature`, then replaced by `fallback`:
    synthetic, raw or drop. `abstain`: a raw caption that says nothing about the picture is not fused at all.
    `canaries`: the share of the golden rows that must be fused well, else nothing is published.
    """

    name: str = "embedded"
    strategies: tuple[str, ...] = ("fused",)
    prompt: str | None = None
    rewrite_prompt: str | None = None
    adapter: str | None = "auto"
    sees_image: bool = False
    chat: bool | None = None
    keep_facts: float | None = None
    mixed_raw: float = 0.5
    retries: int = 1
    temperature: float = 0.7
    fallback: str = "synthetic"
    abstain: bool = True
    canaries: float = 0.5
    limits: Limits = Limits()  # noqa: RUF009  frozen

    def __post_init__(self) -> None:
        if self.fallback not in FALLBACKS:
            raise ValueError(f"fallback must be one of {', '.join(FALLBACKS)}")
        if not self.strategies or len(set(self.strategies)) < len(self.strategies):
            raise ValueError("strategies must name at least one, and none twice")
        for strategy in self.strategies:
            if strategy not in STRATEGIES:
                raise ValueError(f"there is no strategy {strategy!r}; there are {', '.join(STRATEGIES)}")

    @property
    def bare(self) -> bool:
        """Does the model get the prompt as it is, and answer in one line?"""
        return self.adapter not in (None, "auto") if self.chat is None else not self.chat
