"""Options that commands share, and the settings that follow from them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from capsfusion_etl.errors import InputError

if TYPE_CHECKING:
    from capsfusion_etl.settings import Settings

LakeOption = Annotated[str, typer.Option("--lake", help="Folder of the tables, or catalog.schema.")]


ConfigOption = Annotated[str | None, typer.Option("--config", help="YAML file with the settings.")]


SetOption = Annotated[list[str] | None, typer.Option("--set", help="section.key=value; wins over the file.")]


PairsOption = Annotated[str | None, typer.Option("--pairs", help="parquet, CSV, TSV, JSONL or Delta: file or folder.")]


ColumnOption = Annotated[
    list[str] | None, typer.Option("--column", help="raw_caption=TEXT, url=..., synthetic_caption=...")
]


LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Take the first N rows only.")]


CaptionerOption = Annotated[str | None, typer.Option("--captioner", help="Captioning engine, by name.")]


FuserOption = Annotated[str | None, typer.Option("--fuser", help="Fusion engine, by name.")]


MaxUsdOption = Annotated[float | None, typer.Option("--max-usd", min=0, help="Hard cap in dollars.")]


MaxTokensOption = Annotated[int | None, typer.Option("--max-tokens", min=0, help="Hard cap in tokens.")]


MaxRowsOption = Annotated[int | None, typer.Option("--max-rows", min=0, help="Hard cap in rows that engines settle.")]


NameOption = Annotated[str | None, typer.Option("--name", help="Name of the snapshot; by default s0001, s0002...")]


def columns_of(columns: list[str] | None) -> dict[str, str] | None:
    """Our name -> theirs, of `--column ours=theirs`.

    Raises:
        InputError: it is none.
    """
    pairs = [c.partition("=") for c in columns or ()]
    for ours, equals, theirs in pairs:
        if not (ours and equals and theirs):
            raise InputError(f"--column wants ours=theirs, as in raw_caption=TEXT, got {ours!r}")
    return {ours: theirs for ours, _, theirs in pairs} or None


def settings_of(
    lake: str, config: str | None, sets: list[str] | None, options: Mapping[str, object] | None = None
) -> "Settings":
    """Merge what the lake remembers of earlier commands, the file, `--set` and the options; the last one wins.

    Args:
        options: `section.key` -> value of an option of the command; None where it was not given.
    """
    from capsfusion_etl import settings
    from capsfusion_etl.lake.saved_settings import recall

    merged = recall(lake)
    for name, values in settings.load(config, sets or ()).items():
        for key, value in values.items():
            settings.put(merged, name, key, value)
    given = {dotted: value for dotted, value in (options or {}).items() if value is not None}
    if "source.pairs" in given:
        merged["source"] = {}  # another source: the columns and the limit of the last one are not its own
    for dotted, value in given.items():
        name, _, key = dotted.partition(".")
        settings.put(merged, name, key, value)
    return merged
