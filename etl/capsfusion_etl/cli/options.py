"""Command-line options that several commands share, and the settings that result from them."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from capsfusion_etl.errors import InputError

if TYPE_CHECKING:
    from capsfusion_etl.settings import Settings

LakeOption = Annotated[str, typer.Option("--lake", help="Folder or URL of the lake, or catalog.schema.")]
ConfigOption = Annotated[str | None, typer.Option("--config", help="YAML file with the settings.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="section.key=value; repeatable, overrides the file.")
]
PairsOption = Annotated[
    str | None, typer.Option("--pairs", help="Source: Parquet, CSV, TSV, JSON or Delta; a file, a folder or a pattern.")
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", help="Column of the source: raw_caption=TEXT, url=, synthetic_caption=, image=."),
]
ExplodeOption = Annotated[
    str | None, typer.Option("--explode", help="raw_caption, if that column holds lists: each caption makes a pair.")
]
LayoutOption = Annotated[
    str | None,
    typer.Option(
        "--layout", help="coyo, datacomp, laion, cc3m, webdataset, huggingface, mds, coco, textcaps, llava..."
    ),
]
EncodingOption = Annotated[
    str | None, typer.Option("--encoding", help="Encoding of CSV, TSV and JSON files; by default UTF-8.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Read only the first N rows.")]
CaptionerOption = Annotated[str | None, typer.Option("--captioner", help="Name of the captioning engine.")]
FuserOption = Annotated[str | None, typer.Option("--fuser", help="Name of the fusion engine.")]
MaxUsdOption = Annotated[float | None, typer.Option("--max-usd", min=0, help="Hard cap on the cost in US dollars.")]
MaxTokensOption = Annotated[int | None, typer.Option("--max-tokens", min=0, help="Hard cap on the tokens.")]
MaxRowsOption = Annotated[
    int | None, typer.Option("--max-rows", min=0, help="Hard cap on the rows that engines settle.")
]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of the snapshot; by default s0001, s0002...")]


def source_of(
    pairs: str | None,
    layout: str | None,
    columns: list[str] | None,
    explode: str | None,
    encoding: str | None,
    limit: int | None,
) -> dict[str, object]:
    """Return the options of a source as options for `settings_of`."""
    return {
        "source.pairs": pairs, "source.layout": layout, "source.columns": columns_of(columns),
        "source.explode": explode, "source.encoding": encoding, "source.limit": limit,
    }  # fmt: skip


def columns_of(columns: list[str] | None) -> dict[str, str] | None:
    """Parse `--column ours=theirs` into a mapping from our column names to the source's; None if none was given.

    Raises:
        InputError: a name or the `=` is missing.
    """
    pairs = [c.partition("=") for c in columns or ()]
    for ours, equals, theirs in pairs:
        if not (ours and equals and theirs):
            raise InputError(f"--column wants ours=theirs, as in raw_caption=TEXT, got {ours!r}")
    return {ours: theirs for ours, _, theirs in pairs} or None


def names_in(value: str | None) -> tuple[str, ...]:
    """Return the names in the value of an option, which are separated by commas."""
    return tuple(name.strip() for name in (value or "").split(",") if name.strip())


def one_of(option: str, value: str | None, names: Collection[str]) -> tuple[str, ...]:
    """Return the names in the value of an option.

    Raises:
        InputError: a name is not one of `names`.
    """
    given = names_in(value)
    for name in given:
        if name not in names:
            raise InputError(f"{option}: {name!r} is none of {', '.join(names)}")
    return given


def caps_of(max_usd: float | None, max_tokens: int | None, max_rows: int | None) -> dict[str, object]:
    """Return the caps on a command's work as options for `settings_of`."""
    return {"budget.max_usd": max_usd, "budget.max_tokens": max_tokens, "budget.max_rows": max_rows}


def settings_of(
    lake: str, config: str | None, sets: list[str] | None, options: Mapping[str, object] | None = None
) -> "Settings":
    """Merge the lake's saved settings, the config file, `--set` and the command's options; the last one wins.

    Args:
        lake: the lake whose saved settings are read.
        config: path of the YAML file, or None.
        sets: `section.key=value` assignments.
        options: `section.key` -> value of an option of the command, None if it was not given.

    Raises:
        InputError: the file or an assignment is invalid.
    """
    from capsfusion_etl import settings
    from capsfusion_etl.lake.saved_settings import recall

    given = {dotted: value for dotted, value in (options or {}).items() if value is not None}
    merged = recall(lake)
    if "source.pairs" in given:
        merged["source"] = {}  # the saved columns and limit belong to the previous source
    for name, values in settings.load(config, sets or ()).items():
        for key, value in values.items():
            settings.put(merged, name, key, value)
    for dotted, value in given.items():
        name, _, key = dotted.partition(".")
        settings.put(merged, name, key, value)
    return merged
