"""What a lake remembers: the settings of its last command, so that the next one need not repeat them."""

import re
from pathlib import Path

import yaml

from capsfusion_etl import settings
from capsfusion_etl.errors import InputError


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


def remember(root: str, current: settings.Settings) -> None:
    """Keep the settings for the next command; the file is only touched if they differ.

    Raises:
        InputError: the folder cannot be written.
    """
    path = folder_of(root) / "settings.yaml"
    text = yaml.safe_dump(current, sort_keys=True)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        if error.errno is not None and isinstance(error, PermissionError | NotADirectoryError | FileExistsError):
            raise InputError(f"cannot write to the lake {root}: {error.strerror}") from None
        raise
