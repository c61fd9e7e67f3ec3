"""`capsfusion snapshots`: list, show, diff, hold, release, verify."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from capsfusion_etl.cli.context import open_run
from capsfusion_etl.cli.options import LakeOption, settings_of
from capsfusion_etl.errors import InputError

if TYPE_CHECKING:
    from capsfusion_etl.lake.run import Run

app = typer.Typer(help="List, show, compare, hold and verify snapshots.", no_args_is_help=True, add_completion=False)
NameArgument = Annotated[str, typer.Argument(help="Name of the snapshot.")]


def _open(lake: str) -> "Run":
    return open_run(lake, settings_of(lake, None, None), create=False, keep=False)


@app.command("list")
def list_(lake: LakeOption) -> None:
    """List every snapshot with its state: published, held, taken_down or broken."""
    from capsfusion_etl.snapshots.catalog import overview

    print(
        f"{'name':16s} {'strategy':16s} {'version':>7s} {'rows':>12s} {'files':>6s} {'MB':>10s} published         state"
    )
    for row in overview(_open(lake)):
        state = f"broken: {row['missing']} files are gone" if row["missing"] else row["state"]
        size, when = row["size_bytes"] / 1e6, f"{row['created_at']:%Y-%m-%d %H:%M}"
        numbers = f"{row['version']:7d} {row['row_count']:12,d} {row['files']:6,d} {size:10,.1f}"
        print(f"{row['name']:16s} {row['strategy']:16s} {numbers} {when}  {state}")


@app.command()
def show(name: NameArgument, lake: LakeOption) -> None:
    """Print the manifest of a snapshot as JSON: table, version, files with sizes and hashes, gate result."""
    from capsfusion_etl.snapshots.catalog import find

    print(json.dumps(asdict(find(_open(lake), name)), indent=1, sort_keys=True, ensure_ascii=False))


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="The older snapshot.")],
    now: Annotated[str, typer.Argument(help="The newer snapshot.")],
    lake: LakeOption,
) -> None:
    """Count the pairs that were added, removed or changed, with examples of changed captions."""
    from capsfusion_etl.snapshots.difference import diff as compare

    found = compare(_open(lake), before, now)
    print(f"added {found.added:,}  removed {found.removed:,}  changed {found.changed:,}  same {found.kept:,}")
    for pair_id, old, new in found.examples:
        print(f"{pair_id[:12]}  - {old}\n{'':12s}  + {new}")


@app.command()
def hold(name: NameArgument, lake: LakeOption) -> None:
    """Keep the files of a snapshot when VACUUM runs on the table."""
    from capsfusion_etl.snapshots.catalog import hold as keep

    print(f"{name} is held in {keep(_open(lake), name).hold}")


@app.command()
def release(name: NameArgument, lake: LakeOption) -> None:
    """Release the hold on a snapshot."""
    from capsfusion_etl.snapshots.catalog import release as let_go

    left = let_go(_open(lake), name)
    print(
        f"{name} is still held by {', '.join(left)}"
        if left
        else f"{name} is no longer held: VACUUM may remove its files after the table's retention period"
    )


@app.command()
def verify(name: NameArgument, lake: LakeOption) -> None:
    """Read every file and compare its size and hash with the manifest. Exit status 2 if one differs or is missing."""
    from capsfusion_etl.snapshots.catalog import faults

    found = faults(_open(lake), name)
    if found:
        raise InputError(f"snapshot {name} is broken: {'; '.join(found)}")
    print(f"{name}: every file has the size and hash that it was published with")
