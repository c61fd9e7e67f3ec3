"""`capsfusion takedown` and `explain`: what people ask about single rows."""

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
    url: Annotated[Several, typer.Option(help="Address of a picture; may be given again.")] = None,
    domain: Annotated[Several, typer.Option(help="Host and all below it.")] = None,
    image_hash: Annotated[Several, typer.Option(help="image_id: sha256 of the bytes.")] = None,
    pair_id: Annotated[Several, typer.Option(help="A single pair.")] = None,
    file: Annotated[Path | None, typer.Option(help="A request a line: an address, or `domain example.org`...")] = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Leave the bytes in no file: old versions, holds, reports go, too.")
    ] = False,
) -> None:
    """Remove rows from every table, mark what was made with them, keep them from coming back; prints the proof."""
    import json
    from dataclasses import asdict

    from capsfusion_etl.operations.takedown import requests_in, take_down

    given = {"url": url, "domain": domain, "image_id": image_hash, "pair_id": pair_id}
    requests = [(kind, value) for kind, values in given.items() for value in values or ()]
    requests += requests_in(file) if file is not None else []
    current = open_run(lake, settings_of(lake, None, None), create=False)
    print(json.dumps(asdict(take_down(current, requests, purge=purge)), indent=1))


@app.command()
def explain(
    row: Annotated[str, typer.Argument(help="A pair_id (or how it begins), or the address of a picture.")],
    lake: LakeOption,
) -> None:
    """Tell the story of a row, stage by stage."""
    from capsfusion_etl.operations.explain import explain_pair

    for line in explain_pair(open_run(lake, settings_of(lake, None, None), create=False, keep=False).lake, row):
        print(line)
