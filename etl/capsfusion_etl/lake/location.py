"""Where the files of a lake are that are not tables: settings, manifests, reports, logs. Needs no Spark."""

import os
import re
from pathlib import Path

from capsfusion_etl.errors import InputError, RetryError, explain
from capsfusion_etl.storage import as_path, is_remote

WORK = "capsfusion-work"


def is_catalog(root: str) -> bool:
    """Return whether `root` names a schema (`catalog.schema`) and is not an existing file or folder."""
    return bool(re.fullmatch(r"\w+\.\w+", root)) and not Path(root).exists()


def folder_of(root: str) -> Path:
    """Return the folder of a lake's settings, manifests and reports.

    It is `_capsfusion` beside the tables. A lake in a catalog has a folder below the folder or URL in the environment
    variable CAPSFUSION_WORK (by default `capsfusion-work` in the current directory).
    """
    if is_catalog(root):
        base = os.environ.get("CAPSFUSION_WORK", WORK)
        return as_path(f"{base}/{root}") if is_remote(base) else Path(base, root).absolute()
    return as_path(f"{root.rstrip('/')}/_capsfusion") if is_remote(root) else Path(root, "_capsfusion").absolute()


def local_folder_of(root: str) -> Path:
    """Return `folder_of(root)`, or a folder below `capsfusion-work` on this machine if that is a URL.

    It is for logs and for libraries that write only to local disks.
    """
    folder = folder_of(root)
    return Path(WORK, root.replace("://", "/")).absolute() if is_remote(str(folder)) else folder


def prepare(root: str) -> Path:
    """Create `folder_of(root)` and `local_folder_of(root)`; return the local one.

    Raises:
        InputError: a folder cannot be created: no permission, or a file has its name.
        RetryError: the credentials of the store have expired.
    """
    local = local_folder_of(root)
    try:
        local.mkdir(parents=True, exist_ok=True)
        folder_of(root).mkdir(parents=True, exist_ok=True)
    except (PermissionError, NotADirectoryError, FileExistsError, FileNotFoundError) as error:
        if isinstance(known := explain(error), RetryError):
            raise known from None
        raise InputError(f"cannot create a lake at {root}: {error.strerror or error}") from None
    return local
