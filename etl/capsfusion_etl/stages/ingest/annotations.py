"""Sources that are a JSON of captions beside a folder of pictures: COCO, Karpathy's splits, TextCaps, LLaVA."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs
from pyspark.sql import DataFrame, SparkSession

from capsfusion_etl.errors import InputError
from capsfusion_etl.stages.ingest.files import listed
from capsfusion_etl.storage import filesystem_of, is_remote
from capsfusion_etl.tables.arrow import batch_of_rows, batches_of_rows, schema_of

_FOUND = "name string, url string, captions array<string>, extra map<string, string>"
_LINKED = "url string, raw_caption string, extra map<string, string>"
_COLUMNS = f"{_LINKED}, bytes binary"
_TASKS, _OF_A_TASK = 200, 2**17  # tasks that read pictures, at most, and bytes of JSON for each


@dataclass(slots=True)
class Entry:
    """A picture with its captions.

    Attributes:
        name: file of the picture, relative to the folder of pictures.
        url: its address; empty if the source has none.
        captions: what is said of it.
        extra: what else the source tells.
    """

    name: str
    url: str = ""
    captions: list[str] = field(default_factory=list)
    extra: dict[str, str] = field(default_factory=dict)


def read_annotations(
    spark: SparkSession, layout: str, root: str, images: str | None, max_bytes: int, *, explode: bool
) -> DataFrame:
    """Read a JSON of captions, or a folder of them; a pair for each picture, or with `explode` for each caption.

    Args:
        spark: the session.
        layout: a key of LAYOUTS_OF_ANNOTATIONS.
        root: path or URL of the JSON.
        images: folder or URL of the pictures; None: they have addresses, from which they are fetched.
        max_bytes: larger pictures are not read; their row has no bytes.
        explode: whether each of several captions makes a pair; otherwise they are refused.

    Raises:
        InputError: the file is none of this layout; raised by the action that reads the rows.
    """
    names = [name for name in listed(root) if name.endswith(".json")] or listed(root)
    if not names:
        raise InputError(f"no such file or folder: {root} (or there are no files in it)")
    work = partial(_entries, names=names, layout=layout, explode=explode, placed=images is not None)
    found = spark.range(0, len(names), 1, len(names)).mapInArrow(work, _FOUND)
    if images is None:
        return found.mapInArrow(_linked, _LINKED)
    images = images if is_remote(images) else str(Path(images).absolute())
    load = partial(_loaded, images=images, max_bytes=max_bytes)
    return found.repartition(min(_TASKS, 1 + _size(names) // _OF_A_TASK)).mapInArrow(load, _COLUMNS)


def _size(names: list[str]) -> int:
    """Return the bytes of all files."""
    return sum(files.get_file_info(path).size or 0 for files, path in map(filesystem_of, names))


def _entries(
    ids: Iterator[pa.RecordBatch], names: list[str], layout: str, explode: bool, placed: bool
) -> Iterator[pa.RecordBatch]:
    schema = schema_of(_FOUND)
    for batch in ids:
        for name in map(names.__getitem__, batch.column("id").to_pylist()):
            rows = list[dict[str, Any]]()
            for entry in _parsed(name, layout):
                if entry.name and not entry.url and not placed:
                    raise InputError(
                        f"{name} names its pictures by file ({entry.name}): name their folder, --set source.images=..."
                    )
                if len(entry.captions) > 1 and not explode:
                    raise InputError(
                        f"{name} has several captions of {entry.name}: --explode raw_caption makes a pair of each"
                    )
                rows.append({
                    "name": entry.name, "url": entry.url, "captions": entry.captions, "extra": list(entry.extra.items())
                })  # fmt: skip
            yield batch_of_rows(schema, rows)


def _parsed(name: str, layout: str) -> list[Entry]:
    files, path = filesystem_of(name)
    try:
        with files.open_input_stream(path) as file:
            return LAYOUTS_OF_ANNOTATIONS[layout](json.loads(file.read()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{name} is not of the layout {layout}: {what}") from None


def _linked(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch_of_rows(schema_of(_LINKED), [pair for row in batch.to_pylist() for pair in _pairs(row, row["url"])])


def _loaded(batches: Iterator[pa.RecordBatch], images: str, max_bytes: int) -> Iterator[pa.RecordBatch]:
    files, folder = filesystem_of(images)

    def pairs() -> Iterator[dict[str, Any]]:
        for row in (row for batch in batches for row in batch.to_pylist()):
            place = f"{folder.rstrip('/')}/{row['name']}"
            address = row["url"] or (place if is_remote(images) else Path(place).as_uri())
            # A name in a stranger's JSON must not lead out of the folder.
            data = b"" if ".." in row["name"].split("/") else _picture(files, place, max_bytes)
            yield from (pair | {"bytes": data} for pair in _pairs(row, address))

    yield from batches_of_rows(schema_of(_COLUMNS), pairs())


def _picture(files: fs.FileSystem, place: str, max_bytes: int) -> bytes | None:
    """Return a picture; None if it is too large, empty if it is missing, as image sources tell it."""
    info = files.get_file_info(place)
    if info.type != fs.FileType.File:
        return b""
    if (info.size or 0) > max_bytes:
        return None
    data: bytes = files.open_input_stream(place).read()
    return data


def _pairs(row: dict[str, Any], url: str) -> Iterator[dict[str, Any]]:
    for caption in row["captions"] or [""]:
        yield {"url": url, "raw_caption": caption, "extra": row["extra"]}


def _coco(data: Any) -> list[Entry]:
    """COCO and NoCaps: `images` and `annotations`, which name each other by id."""
    licences = {one["id"]: one["name"] for one in data.get("licenses", ()) if "id" in one and "name" in one}
    found: dict[Any, Entry] = {}
    for image in data["images"]:
        url = next((image[key] for key in ("coco_url", "flickr_url", "url") if image.get(key)), "")
        extra = {"image": str(image["id"])}
        if image.get("license") in licences:
            extra["license"] = licences[image["license"]]
        found[image["id"]] = Entry(image["file_name"], url, extra=extra)
    for annotation in data["annotations"]:
        found[annotation["image_id"]].captions.append(str(annotation["caption"]))
    return list(found.values())


def _karpathy(data: Any) -> list[Entry]:
    """Karpathy's splits of COCO and Flickr30k: `images` with their `sentences`."""
    return [
        Entry(
            "/".join(filter(None, (image.get("filepath"), image["filename"]))),
            captions=[sentence["raw"] for sentence in image["sentences"]],
            extra={"split": str(image["split"])},
        )
        for image in data["images"]
    ]


def _textcaps(data: Any) -> list[Entry]:
    """TextCaps: an entry in `data` for each caption, or for each picture with all of them."""
    found: dict[str, Entry] = {}
    for item in data["data"]:
        url = item.get("flickr_original_url") or ""
        entry = found.setdefault(item["image_id"], Entry(f"{item['image_id']}.jpg", url))
        said = [item["caption_str"]] if "caption_str" in item else list(item["reference_strs"])
        entry.captions += [caption for caption in said if caption not in entry.captions]
    return list(found.values())


def _llava(data: Any) -> list[Entry]:
    """LLaVA: conversations, of which the first answer is the caption."""
    return [
        Entry(
            item.get("image") or "",
            captions=[str(turn["value"]) for turn in item["conversations"] if turn["from"] == "gpt"][:1],
            extra={"id": str(item["id"])},
        )
        for item in data
    ]


LAYOUTS_OF_ANNOTATIONS: dict[str, Callable[[Any], list[Entry]]] = {
    "coco": _coco, "nocaps": _coco, "karpathy": _karpathy, "textcaps": _textcaps, "llava": _llava,
}  # fmt: skip
