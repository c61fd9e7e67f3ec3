"""What a lake remembers: the settings of its last command, so that the next one need not repeat them."""

import re
from pathlib import Path

import yaml

from capsfusion_etl import settings
from capsfusion_etl.errors import InputError

_NOT_KEPT = {"fetch.proxy", "budget.max_usd", "budget.max_tokens", "budget.max_rows"}


def is_catalog(root: str) -> bool:
    """Does `root` name a schema (`catalog.schema`, a dot and no slash) rather than a folder?"""
    return bool(re.fullmatch(r"\w+\.\w+", root)) and not Path(root).exists()


def folder_of(root: str) -> Path:
    """Where a lake's manifests, reports and checkpoints go: beside its tables if those are in a local folder."""
    if "://" in root or is_catalog(root):
        return Path("capsfusion-work", root.replace("://", "/")).absolute()
    return Path(root, "_capsfusion").absolute()


def recall(root: str) -> settings.Settings:
    """Settings of the last command on this lake; none for a new one."""
    path = folder_of(root) / "settings.yaml"
    return settings.load(str(path)) if path.is_file() else {}


def prepare(root: str) -> Path:
    """Make the folder of `folder_of`.

    Raises:
        InputError: it cannot be made: no permission, or a file is in the way.
    """
    folder = folder_of(root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (PermissionError, NotADirectoryError, FileExistsError, FileNotFoundError) as error:
        raise InputError(f"cannot make a lake at {root}: {error.strerror}") from None
    return folder


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
