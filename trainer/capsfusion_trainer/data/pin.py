"""Pin what to train on: a snapshot by its name, the newest one that passed its gate, or a version of the table."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from capsfusion_etl.errors import InputError, first_line
from capsfusion_etl.ids import check_name
from capsfusion_etl.lake.location import folder_of
from capsfusion_etl.snapshots import holds
from capsfusion_etl.snapshots.manifest import GateResult, Manifest, describe_files, stays_within
from capsfusion_etl.storage import as_path, is_remote
from capsfusion_etl.tables import literal
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, DeltaProtocolError, TableNotFoundError

LATEST = "latest"
NOT_ASKED = "the gate never checked this version"
SAMPLE = 100  # where not every file is hashed, one in so many is
_HASHED_AT_MOST = 100 * 10**9  # bytes that a pin reads


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
    lake, at, name = _in_lake(address).rpartition("@")
    manifest = _kept(lake, name) if at else _read(as_path(address))
    if manifest is not None:
        if hashes is not None:
            _check(manifest, hashes=hashes)
    elif name.isdigit():
        manifest = _of_version(lake, int(name), strategy)  # made from the files just now: nothing to verify
    else:
        there = ", ".join(sorted(p.stem for p in _folder(lake).glob("*.json"))) or "none"
        raise InputError(f"no snapshot at {address}; there are: {there}")
    if at and _taken_down(lake, manifest):
        raise InputError(f"snapshot {manifest.name} holds pairs that were taken down since: publish a new one")
    if not manifest.gate.passed and not failed_gate:
        raise InputError(
            f"snapshot {manifest.name} did not pass its quality gate: {'; '.join(manifest.gate.failures[:3])}; "
            "--set trainer.failed_gate=true trains on it anyway"
        )
    return manifest


def _in_lake(address: str) -> str:
    """Return `LAKE@NAME` for the path of a manifest that lies in its lake, so that the lake's takedowns hold for it."""
    snapshots, _, file = address.rpartition("/")
    lake, inside, _ = snapshots.rpartition("/_capsfusion/snapshots")
    own = inside and snapshots.endswith(inside) and file.endswith(".json")
    return f"{lake}@{file.removesuffix('.json')}" if own else address


def told(address: str) -> dict[str, Any]:
    """Return the pin of a snapshot as JSON data, for the operator: ids, sizes and gate; or `error` and `reason`.

    Every file is hashed, or above 100 GB one in a hundred: the ranks hash them all, faster than one small pod.
    """
    try:
        manifest = open_snapshot(address, failed_gate=True, hashes=False)
        every = 1 if sum(file.size for file in manifest.files) <= _HASHED_AT_MOST else SAMPLE
        if manifest.gate.failures != (NOT_ASKED,):
            _check(replace(manifest, files=manifest.files[::every]), hashes=True)
    except InputError as error:
        none = address.endswith(f"@{LATEST}") and "no snapshot" in str(error)
        return {"error": str(error), "reason": "NoPassingSnapshot" if none else "SnapshotUnusable"}
    gate = manifest.gate
    text = json.dumps(asdict(gate), sort_keys=True)
    return {
        # The name in `LAKE@NAME`: a version without a snapshot is addressed by its number.
        "name": address.rpartition("@")[2] if gate.failures == (NOT_ASKED,) else manifest.name,
        "strategy": manifest.strategy,
        "tableId": manifest.table_id,
        "version": manifest.version,
        "files": len(manifest.files),
        "bytes": sum(file.size for file in manifest.files),
        "manifestSha256": manifest.sha256(),
        "gate": {
            "result": "passed" if gate.passed else "failed",
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "passedAt": gate.checked_at,
            "successPercent": 100 * (1 - len((*gate.failures, *gate.warnings)) / max(gate.expectations, 1)),
            "failures": list(gate.failures[:3]),
            "suites": gate.suites,
        },
    }


def keep(address: str, holder: str, *, until: datetime | None = None) -> list[str]:
    """Keep the files of a snapshot from VACUUM in the name of `holder`; return all holders.

    Holds that have ended are swept from the lake. Sizes are checked, not hashes: a hold is renewed again and again.

    Args:
        until: When the hold ends; None: never.

    Raises:
        InputError: The snapshot is missing or broken, is a version without a name, or `holder` is not a valid name.
    """
    address = _in_lake(address)
    manifest = open_snapshot(address, failed_gate=True, hashes=False)
    if manifest.gate.failures == (NOT_ASKED,):
        raise InputError(f"{address} has no name: only a snapshot can be held; publish one")
    holds.hold(manifest, holder, until=until)
    _set_state(address, manifest.name, "held")
    for name in holds.sweep(manifest):
        _set_state(address, name, "published")
    return holds.holders(manifest)


def let_go(address: str, holder: str) -> list[str]:
    """Release the hold of `holder`; return the remaining holders.

    Raises:
        InputError: The snapshot does not exist, or `holder` is not a valid name.
    """
    address = _in_lake(address)
    lake, _, name = address.rpartition("@")
    manifest = _kept(lake, name)
    if manifest is None:
        raise InputError(f"no snapshot at {address}")
    left = holds.release(manifest, holder)
    if not left:
        _set_state(address, manifest.name, "published")
    return left


def _set_state(address: str, name: str, state: str) -> None:
    """Update the state of a snapshot in the table `snapshots`, for SQL queries; taken_down stays."""
    table = DeltaTable(_table(address.rpartition("@")[0], "snapshots"))
    new = literal(state)  # names and states contain no quotes: the literal is the same in Spark and delta-rs
    table.update(predicate=f"name = {literal(name)} AND state NOT IN ({new}, 'taken_down')", updates={"state": new})


def newest_passing(lake: str, strategy: str | None = None) -> Manifest | None:
    """Return the newest snapshot, of one strategy or of any, that passed its gate and was not taken down; else None."""
    passed = [m for m in _all(lake) if m.gate.passed and strategy in (None, m.strategy) and not _taken_down(lake, m)]
    return max(passed, key=lambda m: (m.version, m.gate.checked_at), default=None)


def _kept(lake: str, name: str) -> Manifest | None:
    """Return the manifest of a snapshot by its name, its table version or `latest`, or None."""
    path = _folder(lake) / f"{check_name(name, 'snapshot')}.json"
    if path.is_file():
        return _read_in(lake, path)
    if name == LATEST:
        return newest_passing(lake)
    return next((m for m in _all(lake) if name.isdigit() and m.version == int(name)), None)


def _check(manifest: Manifest, *, hashes: bool) -> None:
    if faults := manifest.verify(hashes=hashes):
        raise broken(manifest, faults)


def broken(manifest: Manifest, faults: Sequence[str]) -> InputError:
    """Return the error that files of a snapshot are missing or changed."""
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return InputError(f"snapshot {manifest.name} is broken: {'; '.join(faults[:3])}{more}")


def _all(lake: str) -> list[Manifest]:
    return [_read_in(lake, path) for path in sorted(_folder(lake).glob("*.json"))]


def _of_version(lake: str, version: int, strategy: str) -> Manifest:
    """Build the manifest of a version without a snapshot, from the table's log."""
    location = _table(lake, "training_pairs")
    try:
        table = DeltaTable(location, version=version)
    except TableNotFoundError:
        raise InputError(f"there is no table at {location}") from None
    except DeltaProtocolError as error:
        raise InputError(f"{location} has features of Delta that the trainer cannot read: {error}") from None
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


def _taken_down(lake: str, manifest: Manifest) -> bool:
    """Return whether `capsfusion takedown` marked the snapshot."""
    return (_folder(lake) / f"{manifest.name}.taken_down").is_file()


def _table(lake: str, name: str) -> str:
    return f"{lake.rstrip('/')}/{name}" if is_remote(lake) else str(Path(lake, name).absolute())


def _folder(lake: str) -> Path:
    return folder_of(lake) / "snapshots"


def _read_in(lake: str, path: Path) -> Manifest:
    """Read a manifest of `lake`, whose table is read there, too: the lake may have been copied or moved."""
    return replace(_read(path), at=_table(lake, "training_pairs"))


def _read(path: Path) -> Manifest:
    try:
        return Manifest.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the manifest {path}: {error.strerror}") from None
