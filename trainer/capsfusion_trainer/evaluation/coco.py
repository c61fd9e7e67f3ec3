"""Score captions of any origin, in COCO's results format [{"image_id", "caption"}], against references.

The images of each domain, as in NoCaps, are scored as well.
"""

from pathlib import Path

from capsfusion_etl.errors import InputError

from capsfusion_trainer.evaluation.entities import entities
from capsfusion_trainer.evaluation.entries import entries, read_json
from capsfusion_trainer.evaluation.metrics import bleu, cider_d, rouge_l
from capsfusion_trainer.evaluation.references import ImageId, References

Scores = dict[str, float]


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
    found = [entities(candidate, group) for candidate, group in zip(candidates, references, strict=True)]
    wanted = sum(each.wanted for each in found)
    recall = sum(each.kept for each in found) / wanted if wanted else 0.0
    return {"pictures": len(candidates), **figures, "entity recall": recall}
