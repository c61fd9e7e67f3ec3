"""Pin what to train on, and hold it: what the operator asks of a lake, by the command line."""

import hashlib
import json
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots import holds
from capsfusion_etl.snapshots.address import LATEST, NOT_ASKED, check, in_lake, kept, open_snapshot, table_of
from capsfusion_etl.tables import literal
from deltalake import DeltaTable

SAMPLE = 100  # where not every file is hashed, one in so many is
_HASHED_AT_MOST = 100 * 10**9  # bytes that a pin reads


def told(address: str) -> dict[str, Any]:
    """Return the pin of a snapshot as JSON data, for the operator: ids, sizes and gate; or `error` and `reason`.

    Every file is hashed, or above 100 GB one in a hundred: the ranks hash them all, faster than one small pod.
    """
    try:
        manifest = open_snapshot(address, failed_gate=True, hashes=False)
        every = 1 if sum(file.size for file in manifest.files) <= _HASHED_AT_MOST else SAMPLE
        if manifest.gate.failures != (NOT_ASKED,):
            check(replace(manifest, files=manifest.files[::every]), hashes=True)
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
    address = in_lake(address)
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
    address = in_lake(address)
    lake, _, name = address.rpartition("@")
    manifest = kept(lake, name)
    if manifest is None:
        raise InputError(f"no snapshot at {address}")
    left = holds.release(manifest, holder)
    if not left:
        _set_state(address, manifest.name, "published")
    return left


def _set_state(address: str, name: str, state: str) -> None:
    """Update the state of a snapshot in the table `snapshots`, for SQL queries; taken_down stays."""
    table = DeltaTable(table_of(address.rpartition("@")[0], "snapshots"))
    new = literal(state)  # names and states contain no quotes: the literal is the same in Spark and delta-rs
    table.update(predicate=f"name = {literal(name)} AND state NOT IN ({new}, 'taken_down')", updates={"state": new})
