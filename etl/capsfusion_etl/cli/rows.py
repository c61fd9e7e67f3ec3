"""`capsfusion takedown` and `capsfusion explain`: commands for single rows."""

from pathlib import Path
from typing import Annotated

import typer

from capsfusion_etl.cli.context import open_run
from capsfusion_etl.cli.options import LakeOption, settings_of

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
    purge: Annotated[
        bool, typer.Option("--purge", help="Also remove old table versions, holds and reports: no file keeps the rows.")
    ] = False,
) -> None:
    """Remove rows from every table, mark what was made with them, and block their return; prints the proof."""
    import json
    from dataclasses import asdict

    from capsfusion_etl.lake.blocklist import requests_in
    from capsfusion_etl.operations.takedown import take_down

    given = {"url": url, "domain": domain, "image_id": image_hash, "pair_id": pair_id}
    requests = [(kind, value) for kind, values in given.items() for value in values or ()]
    requests += requests_in(file) if file is not None else []
    current = open_run(lake, settings_of(lake, None, None), create=False)
    print(json.dumps(asdict(take_down(current, requests, purge=purge)), indent=1))


@app.command()
def explain(
    row: Annotated[str, typer.Argument(help="A pair_id or its beginning, or the URL of an image.")],
    lake: LakeOption,
) -> None:
    """Show what happened to a pair, stage by stage."""
    from capsfusion_etl.operations.explain import explain_pair

    for line in explain_pair(open_run(lake, settings_of(lake, None, None), create=False, keep=False).lake, row):
        print(line)
