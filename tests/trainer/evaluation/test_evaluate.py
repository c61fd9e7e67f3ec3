"""Tests of evaluation: scores equal to pycocoevalcap's, choices by likelihood, rows written to the lake."""

import contextlib
import io
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_trainer.config import micro_cpu
from capsfusion_trainer.evaluation.choices import read_questions
from capsfusion_trainer.evaluation.coco import read_predictions, scores
from capsfusion_trainer.evaluation.likelihood import Asked, mean_log_likelihoods
from capsfusion_trainer.evaluation.ptb_tokenizer import tokens
from capsfusion_trainer.evaluation.references import read_references
from capsfusion_trainer.train import train
from capsfusion_trainer.training.export import load
from PIL import Image

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Cli = Callable[..., tuple[int, str, str]]

# Written for this test, with constructs that are hard to tokenize.
SENTENCES = [
    "A man's dog isn't here; he can't, won't and cannot go.",
    "Two dogs play in deep snow near a well-known semi-detached house",
    'The sign says "Fresh Fish" (really) & costs $5.00 or 50% less!',
    "Mr. Smith of the U.S. Army at 5 p.m. on St. Mary's square...",
    "A 10-year-old boy wearing a T-shirt and/or a number 23 jersey, 3:30pm",
    "They're gonna be fine, aren't they? 'Tis a rock'n'roll concert -- in the 1990s.",
    "A plate with 1/2 a sandwich, 2,000 peas; and a cup of café",
    "The J. K. Rowling book, No. 7, lies on the table.",
    "a red bridge over the river in lisbon",
    "A woman with her mother's umbrella at 12/25/2010, AT&T Center",
    "“Curly” quotes — and a dash – in a sentence…",
    "An old clock tower in the town of Graz.",
]


def coco_files(folder: Path, count: int = 40) -> tuple[Path, Path]:
    """Write references (five per image) and predictions, mixed at random; return both paths."""
    chance = random.Random(7)

    def mixed() -> str:
        words = " ".join(chance.sample(SENTENCES, 2)).split(" ")
        start = chance.randrange(len(words) - 6)
        return " ".join(words[start : start + chance.randrange(5, 16)])

    domains = ["in-domain", "near-domain", "out-domain"]
    images = [{"id": i, "file_name": f"{i}.png", "domain": domains[i % 3]} for i in range(count)]
    annotations = [{"id": 10 * i + j, "image_id": i, "caption": mixed()} for i in range(count) for j in range(5)]
    references, predictions = folder / "coco.json", folder / "results.json"
    references.write_text(json.dumps({"images": images, "annotations": annotations}))
    predictions.write_text(json.dumps([{"image_id": i, "caption": mixed()} for i in range(count)]))
    return references, predictions


def test_figures_are_those_of_pycocoevalcap(tmp_path: Path) -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    references, predictions = coco_files(tmp_path)
    ours = scores(read_references(references), read_predictions(predictions))["all"]
    truth: dict[int, list[Any]] = {}
    for annotation in json.loads(references.read_text())["annotations"]:
        truth.setdefault(annotation["image_id"], []).append(annotation)
    said = {row["image_id"]: [row] for row in json.loads(predictions.read_text())}
    with contextlib.redirect_stdout(io.StringIO()):
        gts, res = PTBTokenizer().tokenize(truth), PTBTokenizer().tokenize(said)
        theirs = dict(zip([f"BLEU-{n}" for n in range(1, 5)], Bleu(4).compute_score(gts, res)[0], strict=True))
        theirs |= {"CIDEr-D": Cider().compute_score(gts, res)[0], "ROUGE-L": Rouge().compute_score(gts, res)[0]}
    assert {gts[i][j] for i in gts for j in range(5)} == {
        " ".join(tokens(row["caption"])) for rows in truth.values() for row in rows
    }
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-6), name


def test_the_command_scores_anybodys_captions_by_domain(capsfusion: Cli, tmp_path: Path) -> None:
    references, predictions = coco_files(tmp_path)
    code, out, _ = capsfusion(
        "evaluate", "--references", references, "--predictions", predictions, "--out", tmp_path / "scores.json"
    )
    assert code == 0
    said = json.loads((tmp_path / "scores.json").read_text())
    assert set(said) == {"all", "in-domain", "near-domain", "out-domain"}
    assert sum(said[d]["pictures"] for d in said if d != "all") == said["all"]["pictures"] == 40
    assert f"{said['all']['CIDEr-D']:.4f}" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], "1 pictures have no caption, for example of image_id 39"),
        (lambda rows: [*rows, {"image_id": 99, "caption": "x"}], "1 captions are of no picture"),
        (lambda rows: [*rows, rows[0]], "has two captions for the picture 0"),
        (lambda rows: [{"id": 1}], "entry 0 has no 'image_id'"),
    ],
)
def test_predictions_that_do_not_fit(change: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    references, predictions = coco_files(tmp_path)
    predictions.write_text(json.dumps(change(json.loads(predictions.read_text()))))
    with pytest.raises(InputError, match=message):
        scores(read_references(references), read_predictions(predictions))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with red and blue images, and run/model, which has learned to tell them apart."""
    folder = tmp_path_factory.mktemp("trained")
    from capsfusion_etl.snapshots.manifest import GateResult, Manifest, describe_files
    from deltalake import DeltaTable, write_deltalake

    rows = []
    for i in range(64):
        name = ("red", "blue")[i % 2]
        Image.new("RGB", (32, 32), name).save(folder / f"{i}.png")
        rows.append({
            "pair_id": f"{i:064x}", "image": (folder / f"{i}.png").read_bytes(), "caption": f"all {name}",
            "strategy": "fused", "split": "train",
        })  # fmt: skip
    import pyarrow as pa

    table = folder / "lake/training_pairs"
    write_deltalake(table, pa.Table.from_pylist(rows), partition_by=["strategy", "split"])
    delta = DeltaTable(table)
    files = describe_files(str(table), delta, "fused")
    gate = GateResult(True, 1, (), "report")
    manifest = Manifest("s1", str(table), str(delta.metadata().id), 0, "fused", 64, tuple(rows[0]), files, gate)
    config = replace(
        micro_cpu(), steps=60, global_batch_size=16, image_size=32, llm_width=48, vision_width=32, checkpoint_every=60
    )  # fmt: skip
    train(config, manifest, folder / "run")
    return folder


def test_a_model_describes_chooses_and_goes_on(trained: Path, capsfusion: Cli, tmp_path: Path) -> None:
    code, out, _ = capsfusion("describe", "--model", trained / "run/model", trained / "0.png", trained / "1.png")
    assert code == 0
    assert out.splitlines() == [f"{trained}/0.png: all red", f"{trained}/1.png: all blue"]
    questions = tmp_path / "seed.json"
    asked = [
        {"question": "all", "choice_a": "red", "choice_b": "blue", "answer": "AB"[i % 2], "data_id": f"{i}.png",
         "question_type_id": i % 3, "data_type": "image"}
        for i in range(6)
    ]  # fmt: skip
    questions.write_text(json.dumps({"questions": [*asked, {"data_type": "video"}]}))
    common = ["--checkpoint", trained / "run/model", "--images", trained]
    code, out, _ = capsfusion("evaluate", "--questions", questions, *common, "--out", tmp_path / "scores.json")
    assert code == 0
    assert json.loads((tmp_path / "scores.json").read_text())["all"] == {"accuracy": 1.0}
    clozes = tmp_path / "clozes.jsonl"
    lines = [{"image": f"{i}.png", "prompt": "all", "answers": ["green", ("red", "blue")[i % 2]]} for i in range(4)]
    clozes.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out, _ = capsfusion("evaluate", "--clozes", clozes, *common, "--out", tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text())["all"] == {
        "cloze accuracy": 1.0, "cloze choice accuracy": 1.0, "cloze choice chance": pytest.approx(2 / 3)
    }  # fmt: skip
    assert len(read_questions(questions)) == 6


def test_longer_answers_are_not_at_a_disadvantage(trained: Path) -> None:
    model = load(trained / "run/model")
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1).expand(3, 32, 32)
    [[short, long]] = mean_log_likelihoods(model, red[None], [Asked("all", ("b", "red"))])
    assert short < long


def test_scores_become_rows_of_the_lake(trained: Path, capsfusion: Cli, spark: "SparkSession", tmp_path: Path) -> None:
    references = tmp_path / "coco.json"
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(4)]
    annotations = [{"image_id": i, "caption": f"all {('red', 'blue')[i % 2]}"} for i in range(4)]
    references.write_text(json.dumps({"images": images, "annotations": annotations}))
    code, _, err = capsfusion(
        "evaluate", "--references", references, "--checkpoint", trained / "run/model", "--images", trained,
        "--predictions", tmp_path / "made.json", "--lake", trained / "lake",
    )  # fmt: skip
    assert code == 0, err
    assert [row["caption"] for row in json.loads((tmp_path / "made.json").read_text())] == ["all red", "all blue"] * 2
    rows = spark.sql(
        "SELECT strategy, recipe, step, pairs_seen, max_by(value, evaluated_at) "
        f"FROM delta.`{trained}/lake/evaluations` WHERE benchmark = 'coco.json' AND metric = 'BLEU-1' GROUP BY ALL"
    ).collect()
    assert [tuple(row)[:4] for row in rows] == [("fused", "micro_cpu", 60, 960)]
    assert rows[0][4] == pytest.approx(1.0)


def test_what_cannot_be_scored(capsfusion: Cli, tmp_path: Path) -> None:
    references, predictions = coco_files(tmp_path)
    for options, message in [
        ([], "say what to score"),
        (["--references", references, "--questions", references], "ask for different scores"),
        (["--snapshot", f"{tmp_path}@july", "--clozes", references], "ask for different scores"),
        (["--references", references], "say who answers"),
        (["--references", tmp_path / "none", "--predictions", predictions], "cannot read"),
        (["--references", predictions, "--predictions", predictions], "must be an object, not"),
        (["--questions", references, "--predictions", predictions], "need --checkpoint and --images"),
        (["--references", references, "--predictions", predictions, "--lake", tmp_path], "there is no lake"),
    ]:  # fmt: skip
        code, _, err = capsfusion("evaluate", *options)
        assert (code, message in err) == (2, True), err


def test_a_finished_run_is_needed(snapshot: Callable[..., Path], tmp_path: Path) -> None:
    from capsfusion_trainer.evaluation.held_out import evaluate

    with pytest.raises(InputError, match="there is no finished model"):
        evaluate(open_snapshot(f"{snapshot()}@first"), tmp_path)
