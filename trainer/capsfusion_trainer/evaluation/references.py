"""Read reference captions in the layouts of the benchmarks: COCO and NoCaps, TextCaps, Karpathy's splits (Flickr30k).

COCO, NoCaps: {"images": [{"id", "file_name", "domain"?}], "annotations": [{"image_id", "caption"}]}.
TextCaps: {"data": [{"image_id", "reference_strs" or "caption_str", "image_path"?}]}.
Karpathy: {"images": [{"filename", "split", "imgid" or "cocoid", "sentences": [{"raw"}]}]}; only the split `test`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capsfusion_etl.errors import InputError

from capsfusion_trainer.evaluation.entries import Entry, entries, read_json

ImageId = int | str


@dataclass(frozen=True, slots=True)
class References:
    """Reference captions, file name and domain of each image; the last two only where the file has them."""

    captions: dict[ImageId, list[str]] = field(default_factory=dict)
    files: dict[ImageId, str] = field(default_factory=dict)
    domains: dict[ImageId, str] = field(default_factory=dict)


def read_references(path: Path) -> References:
    """Return the references in a file, whose layout is told from its keys.

    Raises:
        InputError: The file is unreadable, or has another layout.
    """
    data = Entry(read_json(path), str(path)).row
    if "data" in data:
        return _textcaps(data, path)
    images = data.get("images")
    if isinstance(images, list) and images and isinstance(images[0], dict) and "sentences" in images[0]:
        return _karpathy(data, path)
    if "annotations" in data or "images" in data:
        return _coco(data, path)
    raise InputError(
        f"{path} has no 'annotations' (COCO, NoCaps), no 'data' (TextCaps) and no 'images' (Karpathy's splits)"
    )


def _coco(data: dict[str, Any], path: Path) -> References:
    found = References()
    for annotation in entries(data.get("annotations"), f"{path}: annotations"):
        found.captions.setdefault(annotation.name("image_id"), []).append(annotation.text("caption"))
    seen: set[ImageId] = set()
    for image in entries(data.get("images"), f"{path}: images"):
        image_id = image.name("id")
        if image_id in seen:
            raise InputError(f"{image.where}: the id {image_id!r} is there twice")
        seen.add(image_id)
        if file := image.text("file_name", default=""):
            found.files[image_id] = file
        domain = image.text("domain", default="")
        if domain == "all":
            raise InputError(f"{image.where}: the domain 'all' stands for all images: name it otherwise")
        if domain:
            found.domains[image_id] = domain
    return found


def _textcaps(data: dict[str, Any], path: Path) -> References:
    """Each image occurs once for each of its captions, with all of them in `reference_strs`."""
    found = References()
    for row in entries(data["data"], f"{path}: data"):
        image_id = row.name("image_id")
        if row.row.get("reference_strs") is not None:
            found.captions[image_id] = list(row.texts("reference_strs"))
        else:
            found.captions.setdefault(image_id, []).append(row.text("caption_str"))
        file = row.text("image_path", default="") or f"{image_id}.jpg"
        found.files[image_id] = file.rpartition("/")[2]
    return found


def _karpathy(data: dict[str, Any], path: Path) -> References:
    found = References()
    for image in entries(data["images"], f"{path}: images"):
        if image.text("split") != "test":
            continue
        image_id = image.name("cocoid" if "cocoid" in image.row else "imgid")
        if image_id in found.captions:
            raise InputError(f"{image.where}: the id {image_id!r} is there twice")
        said = entries(image.row.get("sentences"), f"{image.where}: sentences")
        found.captions[image_id] = [sentence.text("raw") for sentence in said]
        found.files[image_id] = image.text("filename")
    if not found.captions:
        raise InputError(f"{path} has no image of the split 'test'")
    return found
