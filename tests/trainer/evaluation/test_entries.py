"""Test that benchmark files of another layout are refused by entry, and that nothing is scored in their stead."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_trainer.cli.evaluate import check_writable
from capsfusion_trainer.evaluation.coco import read_predictions, read_references
from capsfusion_trainer.evaluation.describe import read_clozes, read_questions
from capsfusion_trainer.refine.score import score
from capsfusion_trainer.refine.triplets import Triplet

QUESTION = {"data_id": "1.png", "question": "What is it?", "choice_a": "a dog", "choice_b": "a cat", "answer": "B"}
IMAGE = {"id": 1, "file_name": "1.png"}
ANNOTATION = {"image_id": 1, "caption": "A dog."}


def read(reader: Callable[[Path], Any], content: Any, folder: Path) -> Any:
    path = folder / "file.json"
    lines = reader is read_clozes and isinstance(content, list)
    path.write_text("\n".join(map(json.dumps, content)) if lines else json.dumps(content))
    return reader(path)


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        (read_predictions, [{"image_id": 1, "caption": None}], "entry 0: 'caption' must be a text, not null"),
        (read_predictions, {"image_id": 1}, "must be a list, not"),
        (read_predictions, [], "is empty: there is nothing to score"),
        (read_predictions, ["A dog."], "entry 0 must be an object"),
        (read_predictions, [{"image_id": True, "caption": "x"}], "'image_id' must be a whole number or a text"),
        (read_references, [], "must be an object"),
        (read_references, {"images": [IMAGE]}, "annotations must be a list, not null"),
        (
            read_references,
            {"images": [IMAGE], "annotations": [{"image_id": 1, "caption": ["A dog."]}]},
            r'annotations, entry 0: \'caption\' must be a text, not \["A dog."\]',
        ),
        (read_references, {"images": [IMAGE, IMAGE], "annotations": [ANNOTATION]}, "the id 1 is there twice"),
        (
            read_references,
            {"images": [IMAGE | {"domain": "all"}], "annotations": [ANNOTATION]},
            "the domain 'all' stands for all images",
        ),
        (read_references, {"images": [IMAGE | {"domain": 0}], "annotations": [ANNOTATION]}, "'domain' must be a text"),
        (read_questions, {"questions": []}, "is empty: there is nothing to score"),
        (read_questions, {"questions": [QUESTION | {"data_type": "video"}]}, "no question about a single image"),
        (read_questions, {"questions": [QUESTION | {"answer": "D"}]}, "'answer' must be the letter"),
        (read_questions, {"questions": [{**QUESTION, "question": None}]}, "'question' must be a text, not null"),
        (read_clozes, [], "is empty: there is nothing to score"),
        (
            read_clozes,
            [{"image": "1.png", "prompt": "It is the", "answers": "Eiffel Tower"}],
            "must be a list of texts",
        ),
        (read_clozes, [{"image": "1.png", "prompt": "It is the", "answers": ["..."]}], "texts with at least a word"),
        (read_clozes, [{"image": "1.png", "answers": ["dog"]}], "has no 'prompt'"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    reader: Callable[[Path], Any], content: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        read(reader, content, tmp_path)


def test_what_people_have_is_read(tmp_path: Path) -> None:
    assert len(read(read_questions, {"questions": [QUESTION | {"data_type": "Single Image"}]}, tmp_path)) == 1
    assert read(read_predictions, [{"image_id": "a", "caption": ""}], tmp_path) == {"a": ""}
    found = read(read_references, {"images": [IMAGE | {"domain": None}], "annotations": [ANNOTATION]}, tmp_path)
    assert (found.captions, found.domains) == ({1: ["A dog."]}, {})


def test_rows_with_the_same_text_are_compared_with_their_own_references() -> None:
    rows = [Triplet("same", "logo", "A logo.", text) for text in ("A red logo.", "A blue logo on white.")]
    assert score(rows, references=[row.fused_caption for row in rows]).rouge_l == 1.0


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    check_writable("--out", tmp_path / "scores.json")
    check_writable("--out", None)
    for path in (tmp_path / "nodir" / "scores.json", tmp_path):
        with pytest.raises(InputError, match=r"--out: .* cannot be written"):
            check_writable("--out", path)
