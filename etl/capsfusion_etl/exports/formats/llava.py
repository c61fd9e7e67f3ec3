"""LLaVA's pretraining data: one JSON of conversations for each split, and the pictures as files."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from capsfusion_etl.errors import InputError
from capsfusion_etl.exports.formats.base import Format, ShardRecord, Written, suffix_of, told
from capsfusion_etl.exports.output import FileRecord, write_bytes, written
from capsfusion_etl.ids import check_name
from capsfusion_etl.snapshots.manifest import stays_within
from capsfusion_etl.storage import is_remote

# The question of every pair. LLaVA's own data vary its words, which teaches the model no more about pictures.
QUESTION = "<image>\nDescribe the image concisely."


class Llava(Format):
    """For each shard a folder of pictures and a JSON of conversations; `train.json` has those of all shards."""

    def write(self, target: Path, shard: str, rows: Iterable[pa.Table], schema: pa.Schema) -> Written:
        """Write the pictures, then their JSON; see `Format`."""
        entries, size = list[dict[str, Any]](), 0
        for table in rows:
            for row in table.to_pylist():
                image, entry = row["image"], _entry(row)
                if image is not None:
                    entry["image"] = f"images/{shard}/{check_name(row['pair_id'], 'picture')}.{suffix_of(image)}"
                    size += _picture(target / entry["image"], image)
                entries.append(entry)
        record = write_bytes(target, f"parts/{shard}.json", _as_json(entries))
        _without_others(target, shard, entries)  # after the JSON, which would name pictures that are gone
        return Written((record,), {"pictures": len(entries), "picture_bytes": size})

    def read(self, target: Path, shard: ShardRecord) -> Iterator[pa.Table]:
        """Yield the rows of a shard; see `Format`."""
        for entry in json.loads((target / f"parts/{shard.name}.json").read_text(encoding="utf-8")):
            name = entry.pop("image", None)
            del entry["id"]
            caption = entry.pop("conversations")[1]["value"]
            if name is not None and not (name.startswith(f"images/{shard.name}/") and stays_within(name)):
                raise InputError(f"parts/{shard.name}.json names {name}, which is no picture of this shard")
            image = None if name is None else (target / name).read_bytes()
            yield pa.Table.from_pylist([{**entry, "caption": caption, "image": image}])

    def remove(self, target: Path, shard: ShardRecord) -> None:
        """Remove the JSON and the pictures of a shard; see `Format`."""
        super().remove(target, shard)
        _without_others(target, shard.name, [])

    def finish(self, target: Path, shards: list[ShardRecord]) -> list[FileRecord]:
        """Write `train.json` and `held_out.json`; see `Format`."""
        made = []
        for split in dict.fromkeys(shard.split for shard in shards):
            with written(target, f"{split}.json") as out:
                first = True
                for shard in shards:
                    if shard.split == split and shard.files:
                        entries = (target / f"parts/{shard.name}.json").read_text(encoding="utf-8").strip("[]\n")
                        out.write((("[\n" if first else ",\n") + entries).encode())
                        first = False
                out.write(b"[]\n" if first else b"\n]\n")
            made.append(out.record(f"{split}.json"))
        return made

    def paths(self, splits: Iterable[str]) -> dict[str, str]:
        """Return the names of the JSON files."""
        return {split: f"{split}.json" for split in splits}


def _picture(path: Path, data: bytes) -> int:
    """Write a picture, unless it is there; return its size. It is complete once the JSON names it, which is later."""
    if is_remote(str(path)):
        path.write_bytes(data)
        return len(data)
    try:
        there = path.stat().st_size == len(data)
    except FileNotFoundError:
        there = False
        path.parent.mkdir(parents=True, exist_ok=True)
    if not there:
        path.write_bytes(data)
    return len(data)


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    """Return a conversation; the other columns stand beside it, where LLaVA does not look."""
    question = QUESTION if row["image"] is not None else QUESTION.removeprefix("<image>\n")
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": row["caption"]}]
    others = {name: value for name, value in told(row).items() if name != "caption"}
    return {"id": row["pair_id"], "conversations": turns, **others}


def _as_json(entries: list[dict[str, Any]]) -> bytes:
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    return f"[\n{lines}\n]\n".encode()


def _without_others(target: Path, shard: str, entries: list[dict[str, Any]]) -> None:
    """Remove pictures of a shard that an earlier writing of it had."""
    folder = target / "images" / shard
    wanted = {Path(entry["image"]).name for entry in entries if "image" in entry}
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.name not in wanted:
            file.unlink()
