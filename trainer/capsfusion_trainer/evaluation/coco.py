"""Score captions in COCO's formats: predictions of any origin against references of any origin.

References: {"images": [{"id", "file_name", "domain"?}], "annotations": [{"image_id", "caption"}]}; predictions:
[{"image_id", "caption"}]. With `domain`, as in NoCaps, each domain is scored as well.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from capsfusion_etl.errors import InputError
from capsfusion_etl.judge import Row

from capsfusion_trainer.evaluation.entries import Entry, entries, read_json
from capsfusion_trainer.evaluation.metrics import bleu, cider_d, rouge_l

ImageId = int | str
Scores = dict[str, float]


@dataclass(frozen=True, slots=True)
class References:
    """Reference captions, file name and domain of each image; the last two only where the file has them."""

    captions: dict[ImageId, list[str]]
    files: dict[ImageId, str]
    domains: dict[ImageId, str]


def read_references(path: Path) -> References:
    """Return the references in a COCO captions file.

    Raises:
        InputError: The file is unreadable or has another format.
    """
    data = Entry(read_json(path), str(path))
    captions = defaultdict(list)
    for annotation in entries(data.row.get("annotations"), f"{path}: annotations"):
        captions[annotation.name("image_id")].append(annotation.text("caption"))
    files: dict[ImageId, str] = {}
    domains: dict[ImageId, str] = {}
    seen: set[ImageId] = set()
    for image in entries(data.row.get("images"), f"{path}: images"):
        image_id = image.name("id")
        if image_id in seen:
            raise InputError(f"{image.where}: the id {image_id!r} is there twice")
        seen.add(image_id)
        files |= {image_id: file} if (file := image.text("file_name", default="")) else {}
        domain = image.text("domain", default="")
        if domain == "all":
            raise InputError(f"{image.where}: the domain 'all' stands for all images: name it otherwise")
        domains |= {image_id: domain} if domain else {}
    return References(dict(captions), files, domains)


def read_predictions(path: Path) -> dict[ImageId, str]:
    """Return the captions in a COCO results file, by image_id.

    Raises:
        InputError: The file is unreadable, has another format, or has two captions for an image.
    """
    found: dict[ImageId, str] = {}
    for row in entries(read_json(path), f"{path}: the results"):
        image_id = row.name("image_id")
        if image_id in found:
            raise InputError(f"{path} has two captions for the picture {image_id}")
        if row.row.get("caption") != "":  # a model may say nothing
            row.text("caption")
        found[image_id] = row.row["caption"]
    return found


def scores(references: References, predictions: dict[ImageId, str]) -> dict[str, Scores]:
    """Return the figures of each domain; "all" covers all images.

    Raises:
        InputError: An image has no caption, or a caption has an unknown image_id.
    """
    missing, strange = references.captions.keys() - predictions.keys(), predictions.keys() - references.captions.keys()
    if missing or strange:
        what = f"{len(missing)} pictures have no caption" if missing else f"{len(strange)} captions are of no picture"
        raise InputError(f"{what}, for example of image_id {sorted(map(str, missing or strange))[0]}")
    groups: dict[str, list[ImageId]] = {"all": sorted(predictions, key=str)}
    for image_id in groups["all"]:
        if image_id in references.domains:
            groups.setdefault(references.domains[image_id], []).append(image_id)
    return {
        name: _scores([predictions[i] for i in ids], [references.captions[i] for i in ids])
        for name, ids in groups.items()
    }


def _scores(candidates: list[str], references: list[list[str]]) -> Scores:
    by_length = {f"BLEU-{n}": score for n, score in enumerate(bleu(candidates, references), start=1)}
    figures = {"CIDEr-D": cider_d(candidates, references), **by_length, "ROUGE-L": rouge_l(candidates, references)}
    return {"pictures": len(candidates), **figures, "entity recall": _entity_recall(candidates, references)}


def _entity_recall(candidates: list[str], references: list[list[str]]) -> float:
    """Return the share of the references' names and numbers that the captions contain."""
    said = wanted = 0
    for candidate, group in zip(candidates, references, strict=True):
        grounding = Row.of(" ".join(group), "", candidate).grounding
        said, wanted = said + len(grounding.kept), wanted + len(grounding.kept) + len(grounding.lost)
    return said / wanted if wanted else 0.0
