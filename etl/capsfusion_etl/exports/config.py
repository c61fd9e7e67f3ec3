"""What to export: the format, the columns and the size of a shard. Pure."""

from dataclasses import dataclass

from capsfusion_etl.errors import InputError

FORMATS = {
    "webdataset": "tars of image, caption and JSON, for open_clip and webdataset",
    "huggingface": "Parquet with an Image feature and a card, for datasets and the viewer",
    "llava": "LLaVA's pretraining JSON, and the images as files",
    "mds": "shards of MosaicML Streaming",
    "lance": "a Lance data set for each split",
    "parquet": "Parquet as the table training_pairs",
}
# Name on the command line -> column in the export: what the lake knows of a pair beside its published caption.
COLUMNS = {
    "raw": "raw_caption",
    "synthetic": "synthetic_caption",
    "fused": "fused_caption",
    "ledger": "ledger",
    "verdict": "verdict",
    "url": "url",
    "source": "source",
    "extra": "extra",
}
INDEXED = ("pair_id", "image_id", "caption", "split")  # columns of the index of an export
ALWAYS = ("pair_id", "image_id", "caption", "caption_from", "strategy", "split")


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What to export.

    Attributes:
        form: one of FORMATS.
        columns: names in COLUMNS, beside those that are always there (ALWAYS).
        images: whether to export the pictures; without them an export has the column `url`.
        shard_mb: size at which a new shard begins, in MB.
        since: an earlier export, or its `export.json`: only what differs from it is exported.
        contact: whom to ask for a takedown, for the card.
    """

    form: str
    columns: tuple[str, ...] = ()
    images: bool = True
    shard_mb: int = 256
    since: str | None = None
    contact: str | None = None

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise InputError(f"--format: there is no format {self.form!r}; there are {', '.join(FORMATS)}")
        unknown = [name for name in self.columns if name not in COLUMNS]
        if unknown:
            raise InputError(f"--columns: there is no column {unknown[0]!r}; there are {', '.join(COLUMNS)}")
        if self.shard_mb < 1:
            raise InputError(f"--shard-mb: must be at least 1, got {self.shard_mb}")
        if self.form == "llava" and not self.images:
            raise InputError("llava's JSON names files of pictures: export it with pictures, or as another format")

        if self.since is not None and not self.since.endswith(".json"):
            object.__setattr__(self, "since", f"{self.since.rstrip('/')}/export.json")

    @property
    def asked(self) -> tuple[str, ...]:
        """The columns in the export that come from other tables of the lake, in the order of COLUMNS."""
        names = {*self.columns, *(() if self.images else ("url",))}
        return tuple(column for name, column in COLUMNS.items() if name in names)
