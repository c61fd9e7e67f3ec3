"""Settings of the engines: those that captioners and fusers share, and those of each kind."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from capsfusion_etl.judge import Limits
from capsfusion_etl.strategies import STRATEGIES

BATCH_PRICE = 0.5  # price of the batch API, relative to the regular one
FALLBACKS = ("synthetic", "raw", "drop")
_CANNOT_JUDGE = ("embedded", "openai-batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Settings that captioners and fusers share; each engine reads those that concern it.

    Attributes:
        model: name on the Hugging Face Hub, folder, GGUF file, or the name under which a server knows the model.
        revision: revision on the hub.
        batch_size: rows per batch of a model that runs in process.
        max_new_tokens: longest answer in tokens.
        num_beams: beams of the first attempt; later attempts sample without beams (see also `only_sources`). null: the
            engine's default, 1 for most.
        dtype: a floating-point type of torch, int8 (CPU only), or auto: bfloat16 on a GPU, float32 on a CPU, and int8
            for `embedded` on a CPU that supports it. vLLM gets the value as it is.
        engine_args: arguments for vLLM's `LLM` or for `from_pretrained`, passed on as they are.
        base_url: URL of an OpenAI-compatible server; null: the OpenAI API.
        api_key_file: file with the API key; null: the environment variable OPENAI_API_KEY.
        concurrency: requests in flight per Spark task; for `openai-batch`, open batches.
        timeout_s: seconds for one request.
        patience_s: seconds for which a request may be refused for its rate (status 429) before the run stops.
        structured: whether to request JSON that follows a schema, if the server supports it.
        usd_per_million_in: price of a million prompt tokens in US dollars.
        usd_per_million_out: price of a million completion tokens in US dollars.
        image_tokens: most tokens that the server may charge for an image; the budget reserves them.
        poll_s: seconds between two polls of an open batch.
        gpu_executor: resources of the executors of this stage alone (gpu, cores, memory, discoveryScript), so that
            executors of CPU stages hold no GPU.
        seed: seed of sampling.
    """

    model: str | None = None
    revision: str | None = None
    batch_size: int = 32
    max_new_tokens: int = 60
    num_beams: int | None = None
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
        """Return the cost of these tokens in US dollars; `openai-batch` pays the batch price."""
        usual = (prompt_tokens * self.usd_per_million_in + completion_tokens * self.usd_per_million_out) / 1e6
        return usual * (BATCH_PRICE if getattr(self, "name", "") == "openai-batch" else 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionerConfig(EngineConfig):
    """Settings of the captioner.

    Attributes:
        name: one of CAPTIONERS, or `module:Class`.
        otherwise: engine for the pairs to which the source brings no caption, if `name` is column; null: these pairs
            are rejected. If it changes, all synthetic captions are made again, and so is what was fused from them.
        instruction: prompt for models with a chat template.
    """

    name: str = "classifier"
    otherwise: str | None = None
    instruction: str = "Describe this picture in one plain sentence."

    def __post_init__(self) -> None:
        if self.otherwise is not None and (self.name != "column" or self.otherwise == "column"):
            raise ValueError("otherwise is only valid with name: column, and names another engine")

    @property
    def maker(self) -> "CaptionerConfig":
        """Settings of the engine that makes captions, as opposed to copying those of the source."""
        return self if self.otherwise is None else replace(self, name=self.otherwise, otherwise=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class FuserConfig(EngineConfig):
    """Settings of the fuser.

    Attributes:
        name: one of FUSERS, or `module:Class`.
        strategies: caption strategies to make for the same pairs: fused, language-rewrite, raw, synthetic, mixed.
        prompt: template in prompts/; null: the engine's default.
        rewrite_prompt: template for language-rewrite, in which the model sees the raw caption alone; null: the engine's
            default.
        adapter: name of a shipped LoRA adapter, or a folder; auto: the engine's default; null: none.
        sees_image: whether the model gets the image, too.
        chat: whether to wrap the prompt in the model's chat template; null: if the model has one and no adapter is set,
            because `capsfusion refine` trains adapters on bare prompts.
        keep_facts: bonus in logits for names and numbers of the raw caption that the answer lacks so far (for
            `embedded` and `transformers`); null: the engine's default.
        only_sources: whether an answer may only use words of its sources, their inflections, and the plain words in
            judge/words. For `embedded` and `transformers`; its second attempt then searches with six beams instead of
            sampling. Also for `vllm`, and `openai` with vLLM's server, by a grammar. null: the engine's default.
        whole_titles: with `only_sources`, whether an answer rewords the synthetic caption and attaches the whole raw
            one as a title ("in a picture titled ..."), instead of building sentences of its words. null: the engine's
            default.
        mixed_raw: share of the pairs, chosen by hash, for which `mixed` takes the raw caption instead of the synthetic.
        retries: further attempts after an answer that the judge does not accept.
        temperature: sampling temperature of these attempts.
        fallback: what replaces an answer after the last attempt: synthetic, raw or drop.
        abstain: whether to skip fusion if the raw caption says nothing about the image.
        canaries: share of the canary rows that must be accepted, 0 to 1; else an alarm blocks publishing.
        limits: thresholds of the judge.
    """

    name: str = "embedded"
    strategies: tuple[str, ...] = ("fused",)
    prompt: str | None = None
    rewrite_prompt: str | None = None
    adapter: str | None = "auto"
    sees_image: bool = False
    chat: bool | None = None
    keep_facts: float | None = None
    only_sources: bool | None = None
    whole_titles: bool | None = None
    mixed_raw: float = 0.5
    retries: int = 1
    temperature: float = 0.7
    fallback: str = "synthetic"
    abstain: bool = True
    canaries: float = 0.5
    limits: Limits = Limits()  # noqa: RUF009  frozen

    def __post_init__(self) -> None:
        if self.whole_titles and self.name in ("vllm", "openai", "openai-batch"):
            raise ValueError(f"whole_titles works with embedded and transformers, not with {self.name}")
        if self.fallback not in FALLBACKS:
            raise ValueError(f"fallback must be one of {', '.join(FALLBACKS)}")
        if not self.strategies or len(set(self.strategies)) < len(self.strategies):
            raise ValueError("strategies must name at least one strategy, and none twice")
        for strategy in self.strategies:
            if strategy not in STRATEGIES:
                raise ValueError(f"there is no strategy {strategy!r}; there are {', '.join(STRATEGIES)}")

    @property
    def bare(self) -> bool:
        """Return whether the prompt goes to the model without a chat template; the answer is then one line."""
        return self.adapter not in (None, "auto") if self.chat is None else not self.chat


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondOpinionConfig(EngineConfig):
    """Settings of the second opinion: a large model that reads a share of the accepted captions.

    Attributes:
        engine: openai, vllm, transformers, or `module:Class`; the settings above are those of this engine.
        share: share of the accepted captions that it reads, chosen by hash, 0 to 1.
        rubric: template in prompts/ with slots for both sources and the fused caption.
    """

    engine: str = "openai"
    share: float = 0.01
    rubric: str = "opinion-v1"
    max_new_tokens: int = 120

    def __post_init__(self) -> None:
        if self.engine in _CANNOT_JUDGE:
            raise ValueError(f"engine {self.engine} gives no second opinions: use openai, vllm or transformers")
        if not 0 < self.share <= 1:
            raise ValueError("share must be above 0 and at most 1")

    @property
    def fuser(self) -> FuserConfig:
        """Return the settings of the fuser that answers the rubric."""
        shared = {f.name: getattr(self, f.name) for f in fields(EngineConfig)}
        return FuserConfig(name=self.engine, prompt=self.rubric, **shared)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeConfig:
    """Models that help the judge; `fuser.limits` has the thresholds of its checks.

    Attributes:
        second_opinion: see SecondOpinionConfig; null: none.
    """

    second_opinion: SecondOpinionConfig | None = None
