"""Test that benchmark files of another layout are refused by entry, and that nothing is scored in their stead."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from capsfusion_etl.errors import InputError
from capsfusion_trainer.cli.evaluate import check_writable
from capsfusion_trainer.evaluation.choices import read_questions
from capsfusion_trainer.evaluation.clozes import read_clozes
from capsfusion_trainer.evaluation.coco import read_predictions, scores
from capsfusion_trainer.evaluation.references import References, read_references
from capsfusion_trainer.refine.score import score
from capsfusion_trainer.refine.triplets import Triplet, read_triplets

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
        (read_references, {"images": [1], "annotations": [ANNOTATION]}, "images, entry 0 must be an object"),
        (read_references, {"images": 5, "annotations": [ANNOTATION]}, "images must be a list"),
        (read_references, {"info": {}}, r"has no 'annotations' \(COCO, NoCaps\), no 'data'"),
        (read_references, {"data": [{"image_id": "a"}]}, "data, entry 0 has no 'caption_str'"),
        (read_references, {"images": [{"sentences": [], "split": "val"}]}, "has no image of the split 'test'"),
        (read_questions, {"questions": []}, "is empty: there is nothing to score"),
        (read_questions, {"questions": [QUESTION | {"data_type": "video"}]}, "no question about a single image"),
        (read_questions, {"questions": [QUESTION | {"answer": "D"}]}, "'answer' must be the letter"),
        (read_questions, {"questions": [{**QUESTION, "question": None}]}, "'question' must be a text, not null"),
        (read_questions, {"questions": [QUESTION | {"choice_b": None}]}, "'choice_b' must be a whole number or a text"),
        (read_questions, {"questions": [QUESTION | {"choice_b": "a dog "}]}, "'choice_b' must be a text that no other"),
        (read_questions, {"questions": [QUESTION | {"question": "\ud83d"}]}, "'question' must be a text"),
        (
            read_clozes,
            [{"image": "1.png", "prompt": "It is the", "answers": ["Dog"], "distractors": ["dog!"]}],
            "none of them an answer",
        ),
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


def test_the_layouts_of_the_benchmarks_are_read(tmp_path: Path) -> None:
    textcaps = {
        "dataset_type": "val",
        "data": [
            {"image_id": "c0f1", "image_path": "train_images/c0f1.jpg", "caption_str": text,
             "reference_strs": ["A bottle of Rum.", "Rum on a table."]}
            for text in ("A bottle of Rum.", "Rum on a table.")
        ],
    }  # fmt: skip
    found = read(read_references, textcaps, tmp_path)
    assert found.captions == {"c0f1": ["A bottle of Rum.", "Rum on a table."]}
    assert found.files == {"c0f1": "c0f1.jpg"}
    nocaps = {
        "images": [{"id": 0, "open_images_id": "0013ea", "file_name": "0013ea.jpg", "domain": "near-domain"}],
        "annotations": [{"image_id": 0, "id": 7, "caption": "A baby."}],
    }
    found = read(read_references, nocaps, tmp_path)
    assert (found.files, found.domains) == ({0: "0013ea.jpg"}, {0: "near-domain"})
    karpathy = {
        "dataset": "flickr30k",
        "images": [
            {"imgid": number, "filename": f"{number}.jpg", "split": split, "sentences": [{"raw": "Two men."}]}
            for number, split in enumerate(("train", "test", "val"))
        ],
    }
    found = read(read_references, karpathy, tmp_path)
    assert (found.captions, found.files) == ({1: ["Two men."]}, {1: "1.jpg"})


def test_the_names_of_a_reference_are_those_inside_its_sentences() -> None:
    """Joined, the second sentence would begin with a name."""
    references = References({1: ["a man in Lisbon", "People at the bridge in Lisbon"]})
    assert scores(references, {1: "a man in lisbon"})["all"]["entity recall"] == 1.0


def test_rows_with_the_same_text_are_compared_with_their_own_references() -> None:
    rows = [Triplet("same", "logo", "A logo.", text) for text in ("A red logo.", "A blue logo on white.")]
    assert score(rows, references=[row.fused_caption for row in rows]).rouge_l == 1.0


def test_texts_that_are_none_are_not_scored(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no row has a reference caption"):
        score([Triplet("a", "logo", "A logo.", "A red logo.")], references=[""])
    table = pa.table({"raw_caption": ["a"], "synthetic_caption": ["b"], "fused_caption": [7]})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match="the column fused_caption holds int64, not texts"):
        read_triplets(str(tmp_path / "t.parquet"), accepted_only=False)


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    check_writable("--out", tmp_path / "scores.json")
    check_writable("--out", None)
    for path in (tmp_path / "nodir" / "scores.json", tmp_path):
        with pytest.raises(InputError, match=r"--out: .* cannot be written"):
            check_writable("--out", path)
