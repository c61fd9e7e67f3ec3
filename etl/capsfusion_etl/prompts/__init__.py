"""Prompt templates: versioned text files with a slot for the raw caption and one for the synthetic caption.

Both captions are reduced to one line, so that neither can begin a new section of the prompt. A template of the strategy
language-rewrite has only the slot of the raw caption.
"""

from importlib.resources import files

from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import check_name

RAW, SYNTHETIC = "<raw caption>", "<synthetic caption>"
MAX_SOURCE_CHARS = 600  # of each caption; the rest is cut off


def load_template(name: str) -> str:
    """Return the template `name` that is shipped in prompts/.

    Raises:
        InputError: there is no such template, or `name` is not a valid name.
    """
    check_name(name, "prompt")
    asset = files("capsfusion_etl.prompts").joinpath(f"{name}.txt")
    if not asset.is_file():
        assets = (asset.name for asset in files("capsfusion_etl.prompts").iterdir())
        there = sorted(asset.removesuffix(".txt") for asset in assets if asset.endswith(".txt"))
        raise InputError(f"fuser.prompt: unknown prompt {name!r}; use one of {', '.join(there)}")
    return asset.read_text(encoding="utf-8").rstrip("\n")


def render(template: str, raw_caption: str, synthetic_caption: str) -> str:
    """Fill both slots of `template`; a caption that contains the text of a slot is not filled itself."""
    head, _, rest = template.partition(RAW)
    middle, slot, tail = rest.partition(SYNTHETIC)
    return head + _flat(raw_caption) + middle + (_flat(synthetic_caption) + tail if slot else "")


def _flat(text: str) -> str:
    return " ".join(text.split())[:MAX_SOURCE_CHARS]
