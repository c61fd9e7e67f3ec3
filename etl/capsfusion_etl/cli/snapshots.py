"""`capsfusion snapshots ...`: list, show, diff, hold, release, verify."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from capsfusion_etl.cli.context import open_run
from capsfusion_etl.cli.options import LakeOption, settings_of
from capsfusion_etl.errors import InputError

if TYPE_CHECKING:
    from capsfusion_etl.lake.run import Run

app = typer.Typer(help="Snapshots: list, show, compare, hold, check.", no_args_is_help=True, add_completion=False)
NameArgument = Annotated[str, typer.Argument(help="Name of the snapshot.")]


def _open(lake: str) -> "Run":
    return open_run(lake, settings_of(lake, None, None), create=False, keep=False)


@app.command("list")
def list_(lake: LakeOption) -> None:
    """Every snapshot, with its state: published, held, or broken."""
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
    """The manifest of a snapshot, as JSON: table, version, files with sizes and hashes, gate."""
    from capsfusion_etl.snapshots.catalog import find

    print(json.dumps(asdict(find(_open(lake), name)), indent=1, sort_keys=True, ensure_ascii=False))


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="The older snapshot.")],
    now: Annotated[str, typer.Argument(help="The newer one.")],
    lake: LakeOption,
) -> None:
    """How many pairs came, went, and have another caption; with examples."""
    from capsfusion_etl.snapshots.catalog import diff as compare

    found = compare(_open(lake), before, now)
    print(f"added {found.added:,}  removed {found.removed:,}  changed {found.changed:,}  same {found.kept:,}")
    for pair_id, old, new in found.examples:
        print(f"{pair_id[:12]}  - {old}\n{'':12s}  + {new}")


@app.command()
def hold(name: NameArgument, lake: LakeOption) -> None:
    """Keep the files of a snapshot, whoever vacuums the table."""
    from capsfusion_etl.snapshots.catalog import hold as keep

    print(f"{name} is held in {keep(_open(lake), name).hold}")


@app.command()
def release(name: NameArgument, lake: LakeOption) -> None:
    """Let go of a hold."""
    from capsfusion_etl.snapshots.catalog import release as let_go

    left = let_go(_open(lake), name)
    print(
        f"{name} is still held by {', '.join(left)}"
        if left
        else f"{name} is not held any more: the table's retention decides"
    )


@app.command()
def verify(name: NameArgument, lake: LakeOption) -> None:
    """Read every file again and compare sizes and hashes. Exit status 2 if something is wrong."""
    from capsfusion_etl.snapshots.catalog import faults

    found = faults(_open(lake), name)
    if found:
        raise InputError(f"snapshot {name} is broken: {'; '.join(found)}")
    print(f"{name}: every file is as it was when it was published")
