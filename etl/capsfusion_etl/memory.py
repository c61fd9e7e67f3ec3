"""What a lake remembers: the settings of its last command, so that the next one need not repeat them."""

import os
import re
from pathlib import Path

import yaml

from capsfusion_etl import settings
from capsfusion_etl.errors import InputError, RetryError, explain
from capsfusion_etl.stores import is_remote, path_of

WORK = "capsfusion-work"
_NOT_KEPT = {"fetch.proxy", "budget.max_usd", "budget.max_tokens", "budget.max_rows"}


def is_catalog(root: str) -> bool:
    """Does `root` name a schema (`catalog.schema`, a dot and no slash) rather than a folder?"""
    return bool(re.fullmatch(r"\w+\.\w+", root)) and not Path(root).exists()


def folder_of(root: str) -> Path:
    """Where a lake's settings, manifests and reports are: beside its tables, or, for a lake in a catalog, in the folder
    or URL that CAPSFUSION_WORK names (by default `capsfusion-work` here)."""
    if is_catalog(root):
        base = os.environ.get("CAPSFUSION_WORK", WORK)
        return path_of(f"{base}/{root}") if is_remote(base) else Path(base, root).absolute()
    return path_of(f"{root.rstrip('/')}/_capsfusion") if is_remote(root) else Path(root, "_capsfusion").absolute()


def local_folder_of(root: str) -> Path:
    """The same, or a folder on this machine's own disk if that is none: for logs, and what libraries write."""
    folder = folder_of(root)
    return Path(WORK, root.replace("://", "/")).absolute() if is_remote(str(folder)) else folder


def recall(root: str) -> settings.Settings:
    """Settings of the last command on this lake; none for a new one."""
    path = folder_of(root) / "settings.yaml"
    return settings.load(str(path)) if path.is_file() else {}


def prepare(root: str) -> Path:
    """Make the folders of a lake that are no tables; returns the local one.

    Raises:
        InputError: one cannot be made: no permission, or a file is in the way.
        RetryError: the store's credentials have expired.
    """
    local = local_folder_of(root)
    try:
        local.mkdir(parents=True, exist_ok=True)
        folder_of(root).mkdir(parents=True, exist_ok=True)
    except (PermissionError, NotADirectoryError, FileExistsError, FileNotFoundError) as error:
        if isinstance(known := explain(error), RetryError):
            raise known from None
        raise InputError(f"cannot make a lake at {root}: {error.strerror or error}") from None
    return local


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
