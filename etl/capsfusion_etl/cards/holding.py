"""What a card describes: the files of a snapshot in its lake, or of an export. Pure."""

from dataclasses import dataclass, field

PARQUET = "application/x-parquet"
# Our name of a format -> its media type.
MEDIA = {
    "parquet": PARQUET,
    "huggingface": PARQUET,
    "webdataset": "application/x-tar",
    "llava": "application/json",
    "mds": "application/octet-stream",
    "lance": "application/octet-stream",
}


@dataclass(frozen=True, slots=True)
class Holding:
    """Files with the pairs of a snapshot.

    Attributes:
        name: name of the data set.
        version: what tells its states apart: a hash.
        form: format of the files, a key of MEDIA.
        paths: split -> glob pattern of its files.
        columns: names of the columns.
        images: whether there are pictures.
        copy: whether it is a copy outside of the lake, to which takedowns have to be brought.
        files: address, size in bytes and sha256 of each file, if no pattern names them.
        changes: of an export of changes, how many pairs were added, changed, removed and taken_down.
    """

    name: str
    version: str
    form: str
    paths: dict[str, str]
    columns: tuple[str, ...]
    images: bool
    copy: bool = False
    files: tuple[tuple[str, int, str], ...] = ()
    changes: dict[str, int] = field(default_factory=dict)
