"""webdataset: tars whose samples are `<pair_id>.jpg`, `.txt` (the caption) and `.json` (all other columns)."""

import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from capsfusion_etl.exports.formats.base import Format, ShardRecord, Written, suffix_of, told
from capsfusion_etl.exports.output import FileRecord, write_bytes, written

_END = b"\0" * tarfile.RECORDSIZE  # at least two empty blocks, as `tar` and tarfile write them
_JSON = json.JSONEncoder(ensure_ascii=False)
# A header of tarfile's without a name; its own function takes ten times as long, and half of the time of an export.
_BLANK = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
_NAME, _SIZE, _SUM = slice(0, 100), slice(124, 135), slice(148, 156)
_BETWEEN = (_BLANK[_NAME.stop : _SIZE.start], _BLANK[_SIZE.stop : _SUM.start], _BLANK[_SUM.stop :])
_SUM_OF_BLANK = sum(map(sum, _BETWEEN)) + 8 * ord(" ")  # the sum counts itself as spaces


class WebDataset(Format):
    """A tar for each shard. Owners and times are 0, so that the same rows have the same bytes."""

    def write(self, target: Path, shard: str, rows: Iterable[pa.Table], schema: pa.Schema) -> Written:
        """Write a tar; see `Format`."""
        with written(target, f"{shard}.tar") as out:
            for table in rows:
                out.write(b"".join(part for row in table.to_pylist() for part in _sample(row)))
            out.write(_END[: -out.size % tarfile.RECORDSIZE or tarfile.RECORDSIZE])
        return Written((out.record(f"{shard}.tar"),))

    def read(self, target: Path, shard: ShardRecord) -> Iterator[pa.Table]:
        """Yield the samples of a tar; see `Format`."""
        with (target / f"{shard.name}.tar").open("rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
            row: dict[str, Any] = {}
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None  # we write plain files only
                data, suffix = content.read(), member.name.rpartition(".")[2]
                if suffix == "json":  # the last member of a sample
                    yield pa.Table.from_pylist([{**json.loads(data), **row}])
                    row = {}
                elif suffix != "txt":
                    row["image"] = data

    def finish(self, target: Path, shards: list[ShardRecord]) -> list[FileRecord]:
        """Write `sizes.json`, by which open_clip counts the samples; see `Format`."""
        sizes = {f"{shard.name}.tar": shard.rows for shard in shards if shard.files}
        return [write_bytes(target, "sizes.json", json.dumps(sizes, indent=1).encode())]

    def paths(self, splits: Iterable[str]) -> dict[str, str]:
        """Return the patterns of the tars."""
        return {split: f"{split}-*.tar" for split in splits}


def _sample(row: dict[str, Any]) -> Iterator[bytes]:
    key, image = row["pair_id"], row.get("image")
    if image is not None:
        yield from _member(f"{key}.{suffix_of(image)}", image)
    yield from _member(f"{key}.txt", (row["caption"] or "").encode())
    yield from _member(f"{key}.json", _JSON.encode(told(row)).encode())


def _member(name: str, data: bytes) -> tuple[bytes, bytes, bytes]:
    return header(name.encode(), len(data)), data, b"\0" * (-len(data) % tarfile.BLOCKSIZE)


def header(name: bytes, size: int) -> bytes:
    """Return the header of a file in a tar: mode 644, owner and time 0; `name` has at most 100 bytes."""
    digits = b"%011o" % size
    checksum = b"%06o\0 " % (_SUM_OF_BLANK + sum(name) + sum(digits))
    return b"".join((name.ljust(_NAME.stop, b"\0"), _BETWEEN[0], digits, _BETWEEN[1], checksum, _BETWEEN[2]))
