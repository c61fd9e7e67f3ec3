"""The settings of the last command on a lake, saved so that the next command need not repeat them."""

import yaml

from capsfusion_etl import settings
from capsfusion_etl.lake.location import folder_of

_NOT_KEPT = {"fetch.proxy", "budget.max_usd", "budget.max_tokens", "budget.max_rows"}


def recall(root: str) -> settings.Settings:
    """Return the settings of the last command on this lake; empty for a new lake."""
    path = folder_of(root) / "settings.yaml"
    return settings.load(str(path)) if path.is_file() else {}


def remember(root: str, current: settings.Settings) -> None:
    """Save the settings for the next command.

    Exceptions are fetch.proxy, whose URL may contain a password, and the caps of the budget, which apply to one run.
    """
    path = folder_of(root) / "settings.yaml"
    kept = {
        name: {k: v for k, v in values.items() if f"{name}.{k}" not in _NOT_KEPT} for name, values in current.items()
    }
    text = yaml.safe_dump(kept, sort_keys=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
