"""Engines: a Captioner looks at a picture, a Fuser merges two sentences; each is chosen by name in the config.

Adding one: write a class with the methods of the protocol, name it in CAPTIONERS or FUSERS. It lives in the Python
worker, is built once and kept across tasks (`load`), and sees whole batches.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import short_hash
from capsfusion_etl.judge import Limits
from capsfusion_etl.prompt import load_template


@dataclass(frozen=True, slots=True)
class CaptionerConfig:
    """`name` is one of CAPTIONERS; `batch_size` in pictures."""

    name: str = "classifier"
    batch_size: int = 32


@dataclass(frozen=True, slots=True)
class FuserConfig:
    """`name` is one of FUSERS, `prompt` an asset in prompts/ (null: the engine's own), `adapter` one in adapters/
    or a folder (for `embedded`; null: the base model as it is).

    A refused answer is asked for again `retries` times by sampling at `temperature`, then replaced by `fallback`:
    synthetic, raw or drop. For engines behind a network: `model`, `base_url`, `api_key_file` (else OPENAI_API_KEY),
    `concurrency` (requests in flight for each task), `timeout_s` and the prices of a million tokens.
    """

    name: str = "embedded"
    prompt: str | None = None
    adapter: str | None = "smollm2-refine-v1"
    max_new_tokens: int = 60
    retries: int = 1
    temperature: float = 0.7
    fallback: str = "synthetic"
    batch_size: int = 32
    seed: int = 0
    model: str | None = None
    base_url: str | None = None
    api_key_file: str | None = None
    concurrency: int = 32
    timeout_s: float = 60.0
    usd_per_million_in: float = 0.0
    usd_per_million_out: float = 0.0
    limits: Limits = Limits()  # noqa: RUF009  frozen

    def __post_init__(self) -> None:
        if self.fallback not in ("synthetic", "raw", "drop"):
            raise ValueError("fallback must be synthetic, raw or drop")


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine said about one row: `text`, or `error` where it failed on this row alone."""

    text: str | None
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Question:
    """One row for a fuser. `attempt` 0 is greedy; later ones sample, with a seed that follows from the pair."""

    pair_id: str
    raw_caption: str
    synthetic_caption: str
    attempt: int = 0


class Captioner(Protocol):
    """Pictures in, plain sentences out. `model` and `revision` name what made them."""

    model: str
    revision: str

    def caption(self, rows: Sequence[dict[str, Any]]) -> list[Answer]:
        """One answer for each row, in order; rows have image_id, bytes (or None) and extra (a dict)."""


class Fuser(Protocol):
    """Two sentences in, one out."""

    model: str
    revision: str

    def fuse(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer for each question, in order."""


@runtime_checkable
class AsyncFuser(Protocol):
    """A fuser behind a network: one question at a time, many of them in flight."""

    model: str
    revision: str
    concurrency: int

    async def ask(self, question: Question) -> Answer:
        """The answer, or an Answer with the error that concerns this question alone.

        Raises:
            InputError: no question will ever be answered: the key is refused, there is no such model.
            RetryError: the server is away.
        """

    async def close(self) -> None:
        """Close what belongs to the running event loop; `ask` opens it again."""


# name -> (class, does it look at pictures)
CAPTIONERS: dict[str, tuple[str, bool]] = {
    "column": ("capsfusion_etl.engines.column:ColumnCaptioner", False),
    "classifier": ("capsfusion_etl.engines.classifier:ClassifierCaptioner", True),
}
# name -> (class, its prompt)
FUSERS: dict[str, tuple[str, str]] = {
    "embedded": ("capsfusion_etl.engines.embedded:EmbeddedFuser", "compact-v1"),
    "openai": ("capsfusion_etl.engines.openai:OpenAIFuser", "paper-v1"),
}

# Settings that change how fast, how dear or by whose leave an answer comes, not what it says.
_SPEED_ONLY = {
    "batch_size", "concurrency", "timeout_s", "api_key_file", "base_url", "usd_per_million_in", "usd_per_million_out",
}  # fmt: skip
_loaded: dict[str, Any] = {}


def needs_images(config: CaptionerConfig) -> bool:
    """Does this captioner look at pictures?"""
    check(config.name, CAPTIONERS, "captioner.name")
    return CAPTIONERS[config.name][1]


def check(name: str, known: dict[str, Any], key: str) -> None:
    """Raises InputError, with the names that there are, if `name` is none of them."""
    if name not in known:
        raise InputError(f"{key}: there is no engine {name!r}; there are {', '.join(known)}")


def load_captioner(config: CaptionerConfig) -> Captioner:
    """The captioner of `config`, built at the first call in this process."""
    check(config.name, CAPTIONERS, "captioner.name")
    captioner: Captioner = _load(CAPTIONERS[config.name][0], config)
    return captioner


def load_fuser(config: FuserConfig) -> Fuser | AsyncFuser:
    """The fuser of `config`, built at the first call in this process."""
    check(config.name, FUSERS, "fuser.name")
    fuser: Fuser | AsyncFuser = _load(FUSERS[config.name][0], config)
    return fuser


def _load(path: str, config: Any) -> Any:
    key = f"{path} {config}"
    if key not in _loaded:
        module, _, name = path.partition(":")
        build: Callable[[Any], Any] = getattr(import_module(module), name)
        _loaded[key] = build(config)
    return _loaded[key]


def prompt_name(config: FuserConfig) -> str:
    """The prompt that `config` asks for, else the engine's own."""
    check(config.name, FUSERS, "fuser.name")
    return config.prompt or FUSERS[config.name][1]


def captioner_hash(config: CaptionerConfig) -> str:
    """Names what makes the synthetic captions: a change of it makes them again."""
    return _hash(config)


def fuser_hash(config: FuserConfig, captions_from: str) -> str:
    """Names what makes the fused captions: parameters, the prompt's text, the synthetic captions."""
    return _hash(config, load_template(prompt_name(config)), captions_from)


def _hash(config: CaptionerConfig | FuserConfig, *more: str) -> str:
    values = {k: v for k, v in asdict(config).items() if k not in _SPEED_ONLY}
    return short_hash(json.dumps([values, *more], sort_keys=True))
