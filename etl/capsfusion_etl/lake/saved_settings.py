"""The settings of the last command on a lake, so that the next one need not repeat them."""

import yaml

from capsfusion_etl import settings
from capsfusion_etl.lake.location import folder_of

_NOT_KEPT = {"fetch.proxy", "budget.max_usd", "budget.max_tokens", "budget.max_rows"}


def recall(root: str) -> settings.Settings:
    """Settings of the last command on this lake; none for a new one."""
    path = folder_of(root) / "settings.yaml"
    return settings.load(str(path)) if path.is_file() else {}


def remember(root: str, current: settings.Settings) -> None:
    """Keep the settings for the next command, but for fetch.proxy (its address may hold a password) and the caps of
    the budget (they are for one run)."""
    path = folder_of(root) / "settings.yaml"
    kept = {
        name: {k: v for k, v in values.items() if f"{name}.{k}" not in _NOT_KEPT} for name, values in current.items()
    }
    text = yaml.safe_dump(kept, sort_keys=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
