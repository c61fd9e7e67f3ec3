"""Engines by their names: which class, which prompts, and the hash that names what an engine makes."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from typing import Any, TypeVar

from capsfusion_etl.engines.base import AsyncEngine, Captioner, Fuser
from capsfusion_etl.engines.config import CaptionerConfig, FuserConfig
from capsfusion_etl.errors import InputError, MissingDependencyError
from capsfusion_etl.ids import short_hash
from capsfusion_etl.prompts import load_template
from capsfusion_etl.strategies import copies_caption

# name -> (class, does it look at pictures)
CAPTIONERS: dict[str, tuple[str, bool]] = {
    "column": ("capsfusion_etl.engines.column:ColumnCaptioner", False),
    "classifier": ("capsfusion_etl.engines.classifier:ClassifierCaptioner", True),
    "transformers": ("capsfusion_etl.engines.transformers:TransformersCaptioner", True),
    "vllm": ("capsfusion_etl.engines.vllm:VllmCaptioner", True),
    "openai": ("capsfusion_etl.engines.openai:OpenAICaptioner", True),
}
# name -> (class, strategy -> its prompt)
_CHAT = {"fused": "paper-v1", "language-rewrite": "rewrite-v1"}
# With the line breaks and the cue of the paper's own inference script: its model was tuned on them.
_LLAMA = {"fused": "paper-completion-v1", "language-rewrite": "rewrite-v1"}
FUSERS: dict[str, tuple[str, dict[str, str]]] = {
    "embedded": (
        "capsfusion_etl.engines.embedded:EmbeddedFuser",
        {"fused": "compact-v1", "language-rewrite": "rewrite-compact-v1"},
    ),
    "transformers": ("capsfusion_etl.engines.transformers:TransformersFuser", _LLAMA),
    "vllm": ("capsfusion_etl.engines.vllm:VllmFuser", _LLAMA),
    "openai": ("capsfusion_etl.engines.openai:OpenAIFuser", _CHAT),
    "openai-batch": ("capsfusion_etl.engines.openai:OpenAIFuser", _CHAT),
}
EXTRAS = {"torch": "embedded", "transformers": "embedded", "peft": "embedded", "vllm": "vllm", "openai": "etl"}

# Settings that change how fast, how dear or by whose leave an answer comes, not what it says.
_SPEED_ONLY = {
    "batch_size", "concurrency", "timeout_s", "patience_s", "api_key_file", "base_url", "usd_per_million_in",
    "usd_per_million_out", "image_tokens", "poll_s", "strategies", "canaries", "gpu_executor",
}  # fmt: skip
_loaded: dict[str, Any] = {}
T = TypeVar("T")


def needs_images(config: CaptionerConfig) -> bool:
    """Does this captioner look at pictures? One of your own does."""
    return _captioner(config)[1]


def is_paid(config: CaptionerConfig | FuserConfig) -> bool:
    """Is this engine paid by the request: does it answer from behind a network?"""
    return config.name.startswith("openai")


def _captioner(config: CaptionerConfig) -> tuple[str, bool]:
    return _find(config.name, CAPTIONERS, (config.name, True), "captioner.name")


def _fuser(config: FuserConfig) -> tuple[str, dict[str, str]]:
    return _find(config.name, FUSERS, (config.name, _CHAT), "fuser.name")


def _find(name: str, known: dict[str, T], own: T, key: str) -> T:
    """The engine `name`; one of your own is named by its class, as in `mine.engines:Fuser`."""
    if name not in known and not re.fullmatch(r"[\w.]+:\w+", name):
        raise InputError(f"{key}: there is no engine {name!r}; there are {', '.join(known)}, or your own module:Class")
    return known.get(name, own)


def load_captioner(config: CaptionerConfig) -> Captioner | AsyncEngine:
    """The captioner of `config`, built at the first call in this process."""
    captioner: Captioner | AsyncEngine = _load(_captioner(config)[0], config)
    return captioner


def load_fuser(config: FuserConfig) -> Fuser | AsyncEngine:
    """The fuser of `config`, built at the first call in this process."""
    fuser: Fuser | AsyncEngine = _load(_fuser(config)[0], config)
    return fuser


def _load(path: str, config: Any) -> Any:
    key = f"{path} {config}"
    if key not in _loaded:
        module, _, name = path.partition(":")
        try:
            build: Callable[[Any], Any] = getattr(import_module(module), name)
            _loaded[key] = build(config)
        except (ModuleNotFoundError, AttributeError) as error:
            extra = EXTRAS.get(error.name or "")
            if extra is None and error.name not in (module, name):
                raise
            if extra is None:
                raise InputError(f"there is no engine {config.name}: {error}") from None
            raise MissingDependencyError(
                f"the engine {config.name} needs {error.name}: pip install 'capsfusion-lake[{extra}]'"
            ) from None
    return _loaded[key]


def prompt_name(config: FuserConfig, strategy: str = "fused") -> str:
    """The prompt that `config` asks for, else the engine's own for this strategy."""
    asked = config.rewrite_prompt if strategy == "language-rewrite" else config.prompt
    return asked or _fuser(config)[1][strategy]


def captioner_hash(config: CaptionerConfig) -> str:
    """Names what makes the synthetic captions: a change of it makes them again."""
    return _hash(config)


def fuser_hash(config: FuserConfig, captioner_params_hash: str, strategy: str = "fused") -> str:
    """Names what makes the captions of a strategy: parameters, the prompt's text, the synthetic captions."""
    if copies_caption(strategy):  # no engine is asked
        return short_hash(
            json.dumps([strategy, config.mixed_raw if strategy == "mixed" else None, captioner_params_hash])
        )
    return _hash(config, strategy, load_template(prompt_name(config, strategy)), captioner_params_hash)


def _hash(config: CaptionerConfig | FuserConfig, *more: str) -> str:
    values = {k: v for k, v in asdict(config).items() if k not in _SPEED_ONLY}
    return short_hash(json.dumps([values, *more], sort_keys=True))
