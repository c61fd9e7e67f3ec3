"""Prompt templates: versioned text files with slots for the raw, the synthetic and the fused caption, in this order.

Captions are reduced to one line, so that none can begin a new section of the prompt. A template of the strategy
language-rewrite has only the first slot, templates of fusers the first two, and templates of second opinions all three.
"""

from importlib.resources import files

from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import check_name

RAW, SYNTHETIC, FUSED = "<raw caption>", "<synthetic caption>", "<fused caption>"
MAX_SOURCE_CHARS = 600  # of the raw and of the synthetic caption; the rest is cut off


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
        raise InputError(f"unknown prompt {name!r}; use one of {', '.join(there)}")
    return asset.read_text(encoding="utf-8").rstrip("\n")


def render(template: str, raw_caption: str, synthetic_caption: str, fused_caption: str = "") -> str:
    """Fill the slots of `template`; a caption that contains the text of a slot is not filled itself."""
    captions = {
        RAW: _flat(raw_caption)[:MAX_SOURCE_CHARS],
        SYNTHETIC: _flat(synthetic_caption)[:MAX_SOURCE_CHARS],
        FUSED: _flat(fused_caption),
    }
    prompt, rest = "", template
    for slot, caption in captions.items():
        if slot in rest:
            head, _, rest = rest.partition(slot)
            prompt += head + caption
    return prompt + rest


def _flat(text: str) -> str:
    return " ".join(text.split())
