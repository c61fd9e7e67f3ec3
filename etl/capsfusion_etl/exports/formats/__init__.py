"""Formats of exports: each writes a shard, reads it back, and finishes the whole."""

from capsfusion_etl.exports.formats.base import Format
from capsfusion_etl.exports.formats.lance import Lance
from capsfusion_etl.exports.formats.llava import Llava
from capsfusion_etl.exports.formats.mds import Mds
from capsfusion_etl.exports.formats.parquet import HuggingFace, Parquet
from capsfusion_etl.exports.formats.webdataset import WebDataset


def format_of(name: str) -> Format:
    """Return the format with a name of `FORMATS`."""
    formats: dict[str, Format] = {
        "webdataset": WebDataset(), "huggingface": HuggingFace(), "llava": Llava(), "mds": Mds(), "lance": Lance(),
        "parquet": Parquet(),
    }  # fmt: skip
    return formats[name]
