"""Prompts are versioned assets with two slots; both sentences are flattened so that neither can open a section.

A prompt of the strategy language-rewrite has the slot of the raw caption alone.
"""

from importlib.resources import files

from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import check_name

RAW, SYNTHETIC = "<raw caption>", "<synthetic caption>"
MAX_SOURCE_CHARS = 600  # of each sentence: what one caption can use


def load_template(name: str) -> str:
    """The template `name` that ships in prompts/.

    Raises:
        InputError: there is none of that name.
    """
    check_name(name, "prompt")
    asset = files("capsfusion_etl").joinpath("prompts", f"{name}.txt")
    if not asset.is_file():
        there = sorted(p.name.removesuffix(".txt") for p in files("capsfusion_etl").joinpath("prompts").iterdir())
        raise InputError(f"fuser.prompt: there is no prompt {name!r}; there are {', '.join(there)}")
    return asset.read_text(encoding="utf-8").rstrip("\n")


def render(template: str, raw_caption: str, synthetic_caption: str) -> str:
    """Fill the two slots at once: a sentence that spells out a slot is text like any other."""
    head, _, rest = template.partition(RAW)
    middle, slot, tail = rest.partition(SYNTHETIC)
    return head + _flat(raw_caption) + middle + (_flat(synthetic_caption) + tail if slot else "")


def _flat(text: str) -> str:
    return " ".join(text.split())[:MAX_SOURCE_CHARS]
