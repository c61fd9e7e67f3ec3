"""Engines: captioners describe an image, fusers merge two captions. The settings choose each of them by name.

To add an engine, write a class that implements a protocol of `base`, and register it in CAPTIONERS or FUSERS of
`registry`, or name it in the settings as `module:Class`. An engine is built once per Python worker and kept across
tasks. It gets whole batches, or single requests of which many are in flight (`AsyncEngine`).
"""

from capsfusion_etl.engines.base import Answer, AsyncEngine, Captioner, Fuser, Key, Picture, Question
from capsfusion_etl.engines.config import CaptionerConfig, EngineConfig, FuserConfig, JudgeConfig, SecondOpinionConfig
from capsfusion_etl.engines.registry import (
    CAPTIONERS,
    FUSERS,
    captioner_hash,
    fuser_hash,
    is_paid,
    load_captioner,
    load_fuser,
    needs_images,
    prompt_name,
)

__all__ = [
    "CAPTIONERS", "FUSERS", "Answer", "AsyncEngine", "Captioner", "CaptionerConfig", "EngineConfig", "Fuser",
    "FuserConfig", "JudgeConfig", "Key", "Picture", "Question", "SecondOpinionConfig", "captioner_hash", "fuser_hash",
    "is_paid", "load_captioner", "load_fuser", "needs_images", "prompt_name",
]  # fmt: skip
