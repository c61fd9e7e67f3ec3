"""What a lake remembers: the settings of its last command, so that the next one need not repeat them."""

import os
import re
from pathlib import Path

from capsfusion_etl.errors import InputError, RetryError, explain
from capsfusion_etl.storage import as_path, is_remote

WORK = "capsfusion-work"


def is_catalog(root: str) -> bool:
    """Does `root` name a schema (`catalog.schema`, a dot and no slash) rather than a folder?"""
    return bool(re.fullmatch(r"\w+\.\w+", root)) and not Path(root).exists()


def folder_of(root: str) -> Path:
    """Where a lake's settings, manifests and reports are: beside its tables, or, for a lake in a catalog, in the folder
    or URL that CAPSFUSION_WORK names (by default `capsfusion-work` here)."""
    if is_catalog(root):
        base = os.environ.get("CAPSFUSION_WORK", WORK)
        return as_path(f"{base}/{root}") if is_remote(base) else Path(base, root).absolute()
    return as_path(f"{root.rstrip('/')}/_capsfusion") if is_remote(root) else Path(root, "_capsfusion").absolute()


def local_folder_of(root: str) -> Path:
    """The same, or a folder on this machine's own disk if that is none: for logs, and what libraries write."""
    folder = folder_of(root)
    return Path(WORK, root.replace("://", "/")).absolute() if is_remote(str(folder)) else folder


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
