"""Engines: a Captioner looks at an image, a Fuser merges two sentences. Each is chosen by name in the settings.

To add one, write a class with the methods of a protocol in `base`, and name it in CAPTIONERS or FUSERS of `registry`.
It is built once in each Python worker, kept across tasks, and sees whole batches or many questions in flight.
"""

from capsfusion_etl.engines.base import Answer, AsyncEngine, Captioner, Fuser, Key, Picture, Question
from capsfusion_etl.engines.config import CaptionerConfig, EngineConfig, FuserConfig
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
    "FuserConfig", "Key", "Picture", "Question", "captioner_hash", "fuser_hash", "is_paid", "load_captioner",
    "load_fuser", "needs_images", "prompt_name",
]  # fmt: skip
