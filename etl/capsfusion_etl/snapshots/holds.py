"""Keeping a snapshot's files from VACUUM, for as long as somebody wants them; needs no Spark.

A hold keeps them outside of the table, where no VACUUM goes, whoever runs it and with whatever retention: hard links on
a file system that has them, which take no room, else copies, as on object stores (docs/decisions/0011). Each holder has
a marker, and with the last one the files go.
"""

import os
import shutil
from pathlib import Path

from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import check_name
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import as_path, is_remote, remove

PEOPLE = "people"  # who holds by `capsfusion snapshots hold`; a training run has a name of its own


def hold(manifest: Manifest, holder: str = PEOPLE) -> None:
    """Keep the files whatever happens to the table. Done twice it is done once.

    Raises:
        InputError: files are gone already, or `holder` is no name.
    """
    marker, gone = _marker(manifest, holder), manifest.missing()
    if gone:
        raise InputError(f"snapshot {manifest.name} cannot be held any more: {', '.join(gone[:3])} gone")
    for file in manifest.files:
        target = manifest.hold / file.path
        if not target.is_file():
            _link(as_path(manifest.table) / file.path, target)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()


def release(manifest: Manifest, holder: str = PEOPLE) -> list[str]:
    """Let go of a hold; returns who still holds. With nobody left the table's retention decides.

    Raises:
        InputError: `holder` is no name.
    """
    _marker(manifest, holder).unlink(missing_ok=True)
    left = holders(manifest)
    if not left:
        remove(manifest.hold, within=manifest.hold.parent)
    return left


def holders(manifest: Manifest) -> list[str]:
    """Who holds a snapshot."""
    folder = _marker(manifest, PEOPLE).parent
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _marker(manifest: Manifest, holder: str) -> Path:
    return manifest.hold / "_by" / check_name(holder, "holder")


def _link(source: Path, target: Path) -> None:
    if is_remote(str(source)):  # the store copies it itself
        source.fs.cp_file(source.path, target.path)  # type: ignore[attr-defined]
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, part)
    part.replace(target)
