"""Settings of a source, the layouts that are known, and which column of a table is which."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import check_name

# layout -> our column -> column of the source. Without `source.layout` the first whose columns all exist is used.
LAYOUTS: dict[str, dict[str, str]] = {
    "capsfusion": {"url": "image_url", "raw_caption": "laion_2b", "synthetic_caption": "laion_coco"},
    "laion-coco": {"url": "URL", "raw_caption": "TEXT", "synthetic_caption": "top_caption"},
    "laion": {"url": "URL", "raw_caption": "TEXT"},
    "img2dataset": {"url": "url", "raw_caption": "caption"},
    "coyo": {"url": "url", "raw_caption": "text"},
    "datacomp": {"url": "url", "raw_caption": "text"},
    "plain": {"url": "url", "raw_caption": "raw_caption", "synthetic_caption": "synthetic_caption"},
    "plain-without-synthetic": {"url": "url", "raw_caption": "raw_caption"},
}
# The files of Conceptual Captions have no header: their columns, in order.
HEADLESS = {"cc3m": ("raw_caption", "url"), "cc12m": ("url", "raw_caption")}
SHARDS = ("webdataset", "folder")  # layouts whose files are images
STORED = ("huggingface", "mds")  # layouts whose files other libraries stored
ANNOTATIONS = ("coco", "nocaps", "karpathy", "textcaps", "llava")  # layouts of one JSON beside a folder of pictures
_ADDRESSES = ("url", "URL", "image_url")  # columns that hold addresses, whatever the others are called
FIELDS = ("url", "raw_caption", "synthetic_caption", "image")
FORMATS = {".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "json", ".json": "json", ".ndjson": "json"}
AMPERSAND = r"(?i)&(?:amp|#0*38|#x0*26);"  # how HTML writes an ampersand: addresses copied from pages have it


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """Where the pairs come from.

    Attributes:
        pairs: file, folder, pattern or URL of the source.
        name: name of the source; a newer version under the same name updates the pairs of the old one. Null: the path.
        layout: laion, coyo, datacomp, cc3m, webdataset, huggingface, coco...; null: recognised by the columns or files.
        images: folder or URL of the pictures that a JSON of captions names; null: their addresses are fetched.
        format: parquet, csv, tsv, json or delta; null: recognised by the file names.
        columns: maps url, raw_caption, synthetic_caption and image to columns of the source, or to parts of them
            (`caption.text`), for an unknown layout.
        explode: raw_caption, if that column holds lists of captions: each caption becomes a pair.
        encoding: encoding of CSV, TSV and JSON files, as Python names it; another than that of a file is refused.
        limit: most rows to read; null: all.
    """

    pairs: str | None = None
    name: str | None = None
    layout: str | None = None
    images: str | None = None
    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    explode: str | None = None
    encoding: str = "utf-8"
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name, "source")
        if self.limit is not None and self.limit < 0:
            raise InputError(f"source.limit: must be 0 or more rows, got {self.limit}")
        if self.explode not in (None, "raw_caption"):
            raise InputError(f"source.explode: only raw_caption can hold a list of captions, got {self.explode!r}")
        try:
            "".encode(self.encoding)
        except LookupError:
            raise InputError(f"source.encoding: Python knows no encoding {self.encoding!r}") from None
        known = (*LAYOUTS, *HEADLESS, *SHARDS, *STORED, *ANNOTATIONS)
        if self.layout not in (None, *known):
            raise InputError(f"source.layout: there is no layout {self.layout!r}; there are {', '.join(known)}")
        if self.images is not None and self.layout not in ANNOTATIONS:
            raise InputError(f"source.images: goes with source.layout {', '.join(ANNOTATIONS)}")
        unknown = [ours for ours in self.columns if ours not in FIELDS]
        if unknown:
            raise InputError(f"--column {unknown[0]}: there is no such field; there are {', '.join(FIELDS)}")


def mapping_of(files: Mapping[str, Collection[str]], config: SourceConfig) -> dict[str, str]:
    """Return which column of the source is which of FIELDS.

    Args:
        files: the columns of each file. The layout is recognised by all of them together; each file must have the URL
            and the raw caption, if the source has them.
        config: its layout and columns.

    Raises:
        InputError: the layout is not known, or a file lacks a column; the message lists its columns.
    """
    path, given = config.pairs, dict(config.columns)
    there = list(dict.fromkeys(name for names in files.values() for name in names))
    for theirs in given.values():
        if not has(theirs, there):
            raise InputError(f"{path} has no column {theirs!r}; it has {', '.join(there)}")
    if config.layout in LAYOUTS:
        known = LAYOUTS[config.layout]
        missing = [theirs for ours, theirs in known.items() if theirs not in there and ours not in given]
        if missing:
            raise InputError(
                f"{path} is not of the layout {config.layout}: it has no {', '.join(missing)}; "
                f"it has {', '.join(there)}"
            )
    else:
        layouts = [*LAYOUTS.values(), *({name: name for name in names} for names in HEADLESS.values())]
        known = next((m for m in layouts if set(m.values()) <= set(there)), {})
    mapping = {**known, **given}
    if not {"url", "image"} & mapping.keys() and len(named := [name for name in _ADDRESSES if name in there]) == 1:
        mapping["url"] = named[0]
    if "raw_caption" not in mapping:
        raise InputError(
            f"{path} has none of the known layouts ({', '.join(LAYOUTS)}): name the column of the alt-text with "
            f"--column raw_caption=NAME; it has {', '.join(there)}"
        )
    for file, names in files.items():
        needed = [mapping[ours] for ours in ("url", "raw_caption") if ours in mapping]
        lacking = [theirs for theirs in needed if not has(theirs, names)]
        if lacking:
            raise InputError(
                f"{file} has no column {lacking[0]!r}, unlike other files of {path}; it has {', '.join(names)}"
            )
    return mapping


def check_addresses(mapping: Mapping[str, str], picture: str | None, there: Collection[str]) -> None:
    """Check that a source has addresses or pictures: without, all rows of a caption would be one pair.

    Raises:
        InputError: it has neither.
    """
    if picture is None and "url" not in mapping:
        raise InputError(
            f"which column has the addresses? Name it with --column url=NAME; there are {', '.join(there)}"
        )


def has(column: str, names: Collection[str]) -> bool:
    """Return whether `column` is one of `names`, or a path into one of them, such as `caption.text`."""
    return column in names or column.partition(".")[0] in names
