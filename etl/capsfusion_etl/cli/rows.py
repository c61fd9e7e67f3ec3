"""`capsfusion takedown` and `capsfusion explain`: commands for single rows."""

from pathlib import Path
from typing import Annotated

import typer

from capsfusion_etl.cli.context import open_run
from capsfusion_etl.cli.options import LakeOption, settings_of
from capsfusion_etl.errors import InputError

app = typer.Typer()
Several = list[str] | None


@app.command()
def takedown(
    lake: LakeOption,
    url: Annotated[Several, typer.Option(help="URL of an image; repeatable.")] = None,
    domain: Annotated[Several, typer.Option(help="Host, including its subdomains; repeatable.")] = None,
    image_hash: Annotated[Several, typer.Option(help="image_id, the sha256 of the bytes; repeatable.")] = None,
    pair_id: Annotated[Several, typer.Option(help="pair_id of a single pair; repeatable.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="File with one request per line: a URL, or `domain example.org`...")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the proof that a takedown would give.")
    ] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also remove old table versions, holds and reports: no file keeps the rows.")
    ] = False,
) -> None:
    """Remove rows from every table, mark what was made with them, and block their return; prints the proof.

    A request that matches nothing is named, with similar hosts of the lake, and the exit status is 2.
    """
    import json
    from dataclasses import asdict

    from capsfusion_etl.lake.blocklist import requests_in, value_of
    from capsfusion_etl.operations.takedown import take_down
    from capsfusion_etl.operations.takedown_preview import near_domains, preview

    given = {"url": url, "domain": domain, "image_id": image_hash, "pair_id": pair_id}
    requests = [(kind, value) for kind, values in given.items() for value in values or ()]
    requests += requests_in(file) if file is not None else []
    if dry_run and purge:
        raise InputError("--dry-run removes nothing: leave --purge out")
    current = open_run(lake, settings_of(lake, None, None), create=False, keep=not dry_run)
    proof = preview(current.lake, requests) if dry_run else take_down(current, requests, purge=purge)
    print(json.dumps(asdict(proof), indent=1))
    missed = [(kind, value) for kind, value in requests if f"{kind} {value_of(kind, value)}" in proof.unmatched]
    if missed:
        names = ", ".join(f"{kind} {value}" for kind, value in missed)
        domains = [value_of(kind, value) for kind, value in missed if kind == "domain"]
        near = near_domains(current.lake, domains) if domains else []
        similar = f"; similar hosts in the lake: {', '.join(near)}" if near else ""
        blocked = "" if dry_run else ". It is blocked for later all the same."
        raise InputError(f"nothing in the lake matches {names}{similar}{blocked}")


@app.command()
def explain(
    row: Annotated[str, typer.Argument(help="A pair_id or its beginning, or the URL of an image.")],
    lake: LakeOption,
) -> None:
    """Show what happened to a pair, stage by stage."""
    from capsfusion_etl.operations.explain import explain_pair

    for line in explain_pair(open_run(lake, settings_of(lake, None, None), create=False, keep=False).lake, row):
        print(line)
