"""Find a snapshot by its address: by its name, the newest one that passed its gate, or a version of the table.

Needs no Spark: the trainer, the operator's pods and `export` find their snapshots here.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, DeltaProtocolError, TableNotFoundError

from capsfusion_etl.errors import InputError, first_line
from capsfusion_etl.ids import check_name
from capsfusion_etl.lake.location import folder_of, is_catalog
from capsfusion_etl.snapshots.manifest import GateResult, Manifest, describe_files, stays_within
from capsfusion_etl.storage import as_path, is_remote

LATEST = "latest"
NOT_ASKED = "the gate never checked this version"


def open_snapshot(
    address: str, *, failed_gate: bool = False, strategy: str = "fused", hashes: bool | None = True
) -> Manifest:
    """Return the manifest of a snapshot, after checking its files.

    Args:
        address: `LAKE@NAME`; `LAKE@latest`, the newest that passed its gate; `LAKE@12`, a version of training_pairs,
            with or without a snapshot of it; or the path of a manifest file.
        failed_gate: Also accept a snapshot that the quality gate refused, or a version that it never checked.
        strategy: Strategy of the captions, for a version that has no snapshot.
        hashes: Read every file and compare its sha256; False: compare sizes only; None: the caller checks the files.

    Raises:
        InputError: The snapshot does not exist, files are missing or changed (the message names them), it holds pairs
            that were taken down, or its gate did not pass.
    """
    lake, at, name = in_lake(address).rpartition("@")
    manifest = kept(lake, name) if at else _read(as_path(address))
    if manifest is not None:
        if hashes is not None:
            check(manifest, hashes=hashes)
    elif name.isdigit():
        manifest = _of_version(lake, int(name), strategy)  # made from the files just now: nothing to verify
    else:
        there = ", ".join(sorted(p.stem for p in folder(lake).glob("*.json")))
        if name == LATEST and there:
            raise InputError(
                f"none of the snapshots of {lake} ({there}) has passed its gate and is without pairs that were taken "
                "down since: publish a new one"
            )
        raise InputError(f"no snapshot at {address}; there are: {there or 'none'}")
    if at and taken_down(lake, manifest):
        raise InputError(f"snapshot {manifest.name} holds pairs that were taken down since: publish a new one")
    if not manifest.gate.passed and not failed_gate:
        raise InputError(
            f"snapshot {manifest.name} did not pass its quality gate: {'; '.join(manifest.gate.failures[:3])}; "
            "--set trainer.failed_gate=true trains on it anyway, --failed-gate exports it"
        )
    return manifest


def in_lake(address: str) -> str:
    """Return `LAKE@NAME` for the path of a manifest that lies in its lake, so that the lake's takedowns hold for it."""
    snapshots, _, file = address.rpartition("/")
    lake, inside, _ = snapshots.rpartition("/_capsfusion/snapshots")
    own = inside and snapshots.endswith(inside) and file.endswith(".json")
    return f"{lake}@{file.removesuffix('.json')}" if own else address


def newest_passing(lake: str, strategy: str | None = None) -> Manifest | None:
    """Return the newest snapshot, of one strategy or of any, that passed its gate and was not taken down; else None."""
    passed = [m for m in _all(lake) if m.gate.passed and strategy in (None, m.strategy) and not taken_down(lake, m)]
    return max(passed, key=_age, default=None)


def newer_refused(lake: str, manifest: Manifest) -> Manifest | None:
    """Return the newest snapshot of a manifest's strategy if it is newer and did not pass its gate; else None."""
    mine = [m for m in _all(lake) if m.strategy == manifest.strategy]
    newest = max(mine, key=_age, default=manifest)
    return None if newest.gate.passed or _age(newest) <= _age(manifest) else newest


def _age(manifest: Manifest) -> tuple[int, str]:
    return manifest.version, manifest.gate.checked_at


def kept(lake: str, name: str) -> Manifest | None:
    """Return the manifest of a snapshot by its name, its table version or `latest`, or None."""
    path = folder(lake) / f"{check_name(name, 'snapshot')}.json"
    if path.is_file():
        return _read_in(lake, path)
    if name == LATEST:
        return newest_passing(lake)
    return next((m for m in _all(lake) if name.isdigit() and m.version == int(name)), None)


def check(manifest: Manifest, *, hashes: bool) -> None:
    """Check the files of a snapshot (see `Manifest.verify`).

    Raises:
        InputError: A file is missing or has changed.
    """
    if faults := manifest.verify(hashes=hashes):
        raise broken(manifest, faults)


def broken(manifest: Manifest, faults: Sequence[str]) -> InputError:
    """Return the error that files of a snapshot are missing or changed."""
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return InputError(f"snapshot {manifest.name} is broken: {'; '.join(faults[:3])}{more}")


def _all(lake: str) -> list[Manifest]:
    return [_read_in(lake, path) for path in sorted(folder(lake).glob("*.json"))]


def _of_version(lake: str, version: int, strategy: str) -> Manifest:
    """Build the manifest of a version without a snapshot, from the table's log."""
    location = table_of(lake, "training_pairs")
    try:
        table = DeltaTable(location, version=version)
    except TableNotFoundError:
        raise InputError(f"there is no table at {location}") from None
    except DeltaProtocolError as error:
        raise InputError(f"{location} has features of Delta that only Spark can read: {error}") from None
    except DeltaError as error:
        try:
            newest = DeltaTable(location).version()
        except DeltaError:
            raise InputError(f"cannot read the table {location}: {first_line(str(error))}") from None
        raise InputError(f"{location} has no version {version} (any more): the newest is {newest}") from None
    paths = pa.table(table.get_add_actions(flatten=True))["path"].to_pylist()
    gone = [path for path in paths if stays_within(path) and not (as_path(location) / path).is_file()]
    if gone:
        raise InputError(f"version {version} of {location} is broken: {', '.join(gone)} gone; was it vacuumed?")
    files = describe_files(location, table, strategy)
    if not files:
        raise InputError(f"version {version} of {location} has no captions of strategy {strategy}")
    return Manifest(
        name=f"version {version}", table=location, table_id=str(table.metadata().id), version=version,
        strategy=strategy, rows=sum(file.rows for file in files), files=files,
        columns=tuple(f.name for f in table.schema().fields),
        gate=GateResult(False, 0, (NOT_ASKED,), ""),
    )  # fmt: skip


def taken_down(lake: str, manifest: Manifest) -> bool:
    """Return whether `capsfusion takedown` marked the snapshot."""
    return (folder(lake) / f"{manifest.name}.taken_down").is_file()


def table_of(lake: str, name: str) -> str:
    return f"{lake.rstrip('/')}/{name}" if is_remote(lake) else str(Path(lake, name).absolute())


def folder(lake: str) -> Path:
    return folder_of(lake) / "snapshots"


def _read_in(lake: str, path: Path) -> Manifest:
    """Read a manifest of `lake`, whose table is read there, too: a lake in a folder may have been copied or moved."""
    if is_catalog(lake):
        return _read(path)
    return replace(_read(path), at=table_of(lake, "training_pairs"))


def _read(path: Path) -> Manifest:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read the manifest {path}: {error.strerror}") from None
    try:
        return Manifest.parse(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
