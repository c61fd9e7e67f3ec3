"""Test second opinions without Spark: rows come from any engine, and an answer without a verdict costs its row."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from capsfusion_etl.engines import Answer, Question, SecondOpinionConfig
from capsfusion_etl.stages.opinion.worker import opinion_batches, verdict_of

SCHEMA = ("pair_id", "raw_caption", "synthetic_caption", "caption")


class Reader:
    """An engine that finds captions with a price false."""

    model, revision = "reader", "1"

    def __init__(self, _: object) -> None:
        pass

    def fuse(self, questions: Sequence[Question]) -> list[Answer]:
        wrong = ["false" if "$" in q.fused_caption else "good" for q in questions]
        return [Answer(f'{{"verdict": "{verdict}", "wrong": "$"}}', prompt_tokens=9) for verdict in wrong]


def batches() -> Iterator[pa.RecordBatch]:
    rows = [(f"{i:064x}", "Cup", "A cup.", caption) for i, caption in enumerate(("A cup.", "A cup for $3."))]
    yield pa.RecordBatch.from_arrays([pa.array(column) for column in zip(*rows, strict=True)], SCHEMA)


def opinions(config: SecondOpinionConfig) -> list[dict[str, object]]:
    made = opinion_batches(batches(), config, "opinions", "captions", "run", None)
    return [row for batch in made for row in batch.to_pylist()]


def test_each_caption_gets_the_opinion_of_an_engine_of_your_own() -> None:
    rows = opinions(SecondOpinionConfig(engine=f"{__name__}:Reader"))
    assert [(row["caption"], row["verdict"], row["prompt_tokens"]) for row in rows] == [
        ("A cup.", "good", 9),
        ("A cup for $3.", "false", 9),
    ]
    assert {row["params_hash"] for row in rows} == {"opinions"}
    assert {row["caption_params_hash"] for row in rows} == {"captions"}


def test_a_model_in_this_process_reads_the_whole_rubric(tiny_llama: Path) -> None:
    rows = opinions(SecondOpinionConfig(engine="transformers", model=str(tiny_llama), max_new_tokens=8))
    assert [row["verdict"] for row in rows] == ["engine_error"] * 2  # its weights are random
    assert all(str(row["detail"]).startswith("no verdict in the answer") for row in rows)
    assert all(int(str(row["prompt_tokens"])) > 500 for row in rows)


def test_an_engine_that_fails_gives_no_opinion() -> None:
    assert verdict_of(Answer(None, "broke")) == ("engine_error", "broke")
