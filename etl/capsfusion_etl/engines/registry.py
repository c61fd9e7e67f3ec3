"""Registry of engines: the class and default prompts of each name, and the params_hash of its results."""

import json
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, TypeVar

from capsfusion_etl.engines.base import AsyncEngine, Captioner, Fuser
from capsfusion_etl.engines.config import CaptionerConfig, FuserConfig
from capsfusion_etl.engines.generation.weights import with_defaults
from capsfusion_etl.errors import InputError, MissingDependencyError
from capsfusion_etl.ids import short_hash
from capsfusion_etl.prompts import load_template
from capsfusion_etl.strategies import copies_caption

# name -> (class, whether it needs images)
CAPTIONERS: dict[str, tuple[str, bool]] = {
    "column": ("capsfusion_etl.engines.column:ColumnCaptioner", False),
    "classifier": ("capsfusion_etl.engines.classifier:ClassifierCaptioner", True),
    "transformers": ("capsfusion_etl.engines.transformers:TransformersCaptioner", True),
    "vllm": ("capsfusion_etl.engines.vllm:VllmCaptioner", True),
    "openai": ("capsfusion_etl.engines.openai:OpenAICaptioner", True),
}
_CHAT = {"fused": "paper-v1", "language-rewrite": "rewrite-v1"}
# With the line breaks and the cue of the paper's inference script, on which its model was fine-tuned.
_LLAMA = {"fused": "paper-completion-v1", "language-rewrite": "rewrite-v1"}
# name -> (class, strategy -> default prompt)
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
# package -> the extra of capsfusion-lake that installs it
EXTRAS = {"torch": "embedded", "transformers": "embedded", "peft": "embedded", "vllm": "vllm", "openai": "etl"}

# Settings that affect speed, cost or access, but not the text of an answer; they are no part of a params_hash.
_SPEED_ONLY = {
    "batch_size", "concurrency", "timeout_s", "patience_s", "api_key_file", "base_url", "usd_per_million_in",
    "usd_per_million_out", "image_tokens", "poll_s", "strategies", "canaries", "gpu_executor",
}  # fmt: skip
# Settings that came later. While they have their defaults they are no part of a params_hash, so that an upgrade does
# not make all captions again.
_LATER = {"otherwise", "only_sources", "whole_titles", "max_unsupported", "max_embellished"}
_loaded: dict[str, Any] = {}
T = TypeVar("T")


def needs_images(config: CaptionerConfig) -> bool:
    """Return whether this captioner needs images; custom captioners always get them."""
    name = "captioner.name" if config.otherwise is None else "captioner.otherwise"
    return _captioner(config)[1] or _find(config.maker.name, CAPTIONERS, (config.maker.name, True), name)[1]


def is_paid(config: CaptionerConfig | FuserConfig) -> bool:
    """Return whether this engine is paid by request, as those behind the OpenAI API are."""
    return config.name.startswith("openai")


def _captioner(config: CaptionerConfig) -> tuple[str, bool]:
    return _find(config.name, CAPTIONERS, (config.name, True), "captioner.name")


def _fuser(config: FuserConfig) -> tuple[str, dict[str, str]]:
    return _find(config.name, FUSERS, (config.name, _CHAT), "fuser.name")


def _find(name: str, known: dict[str, T], own: T, key: str) -> T:
    """Return the entry of the engine `name` in `known`, or `own` for a custom engine, such as `mine.engines:Fuser`.

    Raises:
        InputError: `name` is neither known nor of the form `module:Class`; the message begins with `key`.
    """
    if name not in known and not re.fullmatch(r"[\w.]+:\w+", name):
        raise InputError(f"{key}: there is no engine {name!r}; there are {', '.join(known)}, or your own module:Class")
    return known.get(name, own)


def load_captioner(config: CaptionerConfig) -> Captioner | AsyncEngine:
    """Return the captioner of `config`; it is built once per process.

    Raises:
        InputError: the engine is unknown, or its settings are wrong.
        MissingDependencyError: a package that it needs is not installed.
    """
    captioner: Captioner | AsyncEngine = _load(_captioner(config)[0], config)
    return captioner


def load_fuser(config: FuserConfig) -> Fuser | AsyncEngine:
    """Return the fuser of `config`; it is built once per process.

    Raises:
        InputError: the engine is unknown, or its settings are wrong.
        MissingDependencyError: a package that it needs is not installed.
    """
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
    """Return the name of the prompt that `config` sets for `strategy`, else the engine's default."""
    asked = config.rewrite_prompt if strategy == "language-rewrite" else config.prompt
    return asked or _fuser(config)[1][strategy]


def captioner_hash(config: CaptionerConfig) -> str:
    """Return the params_hash of synthetic captions; if it changes, they are made again."""
    return _hash(config)


def fuser_hash(config: FuserConfig, captioner_params_hash: str, strategy: str = "fused") -> str:
    """Return the params_hash of a strategy's captions: of the settings, the prompt's text and the synthetic captions.

    Args:
        config: settings of the fuser.
        captioner_params_hash: params_hash of the synthetic captions.
        strategy: a strategy that copies captions has a hash that does not depend on the engine.
    """
    if copies_caption(strategy):
        return short_hash(
            json.dumps([strategy, config.mixed_raw if strategy == "mixed" else None, captioner_params_hash])
        )
    # The defaults of `embedded` change with its adapter, so they count as what they are.
    effective = with_defaults(config) if config.name == "embedded" else config
    return _hash(effective, strategy, load_template(prompt_name(config, strategy)), captioner_params_hash)


def _hash(config: CaptionerConfig | FuserConfig, *more: str) -> str:
    values = {name: value for name, value in _settings(config).items() if name not in _SPEED_ONLY}
    values["num_beams"] = values["num_beams"] or 1  # 1 was the default once
    return short_hash(json.dumps([values, *more], sort_keys=True))


def _settings(config: Any) -> dict[str, Any]:
    """Return the settings of a dataclass as a dictionary, without later ones that have their defaults."""
    values = {field.name: (getattr(config, field.name), field.default) for field in fields(config)}
    return {
        name: _settings(value) if is_dataclass(value) else value
        for name, (value, default) in values.items()
        if not (name in _LATER and value == default)
    }
