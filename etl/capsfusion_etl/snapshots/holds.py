"""Holds: keep the files of a snapshot from VACUUM until the last holder releases them. Needs no Spark.

A hold keeps the files outside of the table, which no VACUUM visits, whatever its retention. They are hard links where
the file system supports them, which take no space, and copies elsewhere, as in object stores (docs/decisions/0011).
Each holder has a marker file; when the last marker is removed, the files are deleted. A marker may say until when it is
valid: what a holder that no longer exists could not release ends by itself (`sweep`).
"""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import check_name
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import is_remote, remove

PEOPLE = "people"  # the holder of `capsfusion snapshots hold`; each training run has a holder name of its own
_MARKERS = "_by"


def hold(manifest: Manifest, holder: str = PEOPLE, *, until: datetime | None = None) -> None:
    """Keep the files of a snapshot from VACUUM for `holder`. Idempotent.

    Args:
        until: When the hold ends; None: never. Holding again sets another end.

    Raises:
        InputError: files are missing already, or `holder` is not a valid name.
    """
    marker, gone = _marker(manifest, holder), manifest.missing()
    if gone:
        raise InputError(f"snapshot {manifest.name} cannot be held any more: {', '.join(gone[:3])} missing")
    valid = until.astimezone(UTC).isoformat(timespec="seconds") if until else ""
    if marker.is_file():  # first of all: another process may be about to sweep what has expired
        marker.write_text(valid, encoding="utf-8")
    for file in manifest.files:
        target = manifest.hold / file.path
        if not target.is_file():
            _link(manifest.folder / file.path, target)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(valid, encoding="utf-8")


def release(manifest: Manifest, holder: str = PEOPLE) -> list[str]:
    """Release the hold of `holder`, and delete the held files if it was the last one. Idempotent.

    Returns:
        The remaining holders. Without any, the files are subject to the table's retention again.

    Raises:
        InputError: `holder` is not a valid name.
    """
    _marker(manifest, holder).unlink(missing_ok=True)
    left = holders(manifest)
    if not left:
        remove(manifest.hold, within=manifest.hold.parent)
    return left


def holders(manifest: Manifest) -> list[str]:
    """Return the sorted names of the holders of a snapshot, without those whose hold has ended."""
    return sorted(path.name for path in _markers(manifest.hold) if not _expired(path))


def sweep(manifest: Manifest) -> list[str]:
    """Delete the held files of the lake's snapshots whose holds have all ended; return the names of these snapshots."""
    folder, swept = manifest.hold.parent, []
    for held in sorted(folder.iterdir()) if folder.is_dir() else []:
        markers = _markers(held)
        if markers and all(map(_expired, markers)):  # without a marker, a hold may be in the making
            remove(held, within=folder)
            swept.append(held.name)
    return swept


def _markers(held: Path) -> list[Path]:
    folder = held / _MARKERS
    return list(folder.iterdir()) if folder.is_dir() else []


def _expired(marker: Path) -> bool:
    until = marker.read_text(encoding="utf-8").strip()
    try:
        return bool(until) and datetime.fromisoformat(until) < datetime.now(UTC)
    except (ValueError, TypeError):
        return False  # what cannot be read is kept


def _marker(manifest: Manifest, holder: str) -> Path:
    return manifest.hold / _MARKERS / check_name(holder, "holder")


def _link(source: Path, target: Path) -> None:
    if is_remote(str(source)):  # copied within the store
        source.fs.cp_file(source.path, target.path)  # type: ignore[attr-defined]
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, part)
    part.replace(target)
