"""Captions that took hours to make: a study takes the answers to its questions from those in `made`.

    python examples/claim/kept.py FOLDER SIZE

keeps in `made/SIZE` what a run in FOLDER has made so far: captions, and scores of models. Delete them to have all made
anew.
"""

import json
import sys
from collections.abc import Collection
from pathlib import Path

import kept_models
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from capsfusion_etl.storage import write_json, write_parquet
from deltalake import DeltaTable, write_deltalake

KEPT = Path(__file__).with_name("made")
# What the language model is shown, by strategy; it answers equal questions alike. (Whether it is asked at all may depend
# on the synthetic caption, too: `judge.abstain`. With the captions of this world it does not.)
_QUESTIONS = {"fused": ["raw_caption", "synthetic_caption"], "language-rewrite": ["raw_caption"]}


def keep(folder: Path, kept: Path) -> None:
    """Keep the captions that the captioner and the fuser have made in the folder of a study."""
    kept.mkdir(parents=True, exist_ok=True)
    said = json.loads((folder / "synthetic.json").read_text(encoding="utf-8"))
    write_parquet(kept / "synthetic.parquet", pa.table({"caption": said}), compression="zstd")
    rows = _written(folder / "lake")
    once = []
    for strategy, question in _QUESTIONS.items():
        answers = rows.filter(pc.field("strategy") == strategy)
        once.append(answers.take(_distinct(answers, question)["at_min"]))
    asked = pa.concat_tables(once)
    asked = _with(asked, {"pair_id": pa.array([""] * len(asked))})  # any pair may ask
    write_parquet(kept / "fused_captions.parquet", asked, compression="zstd", compression_level=19)


def take_synthetic(kept: Path, target: Path) -> None:
    """Write the kept captions of the captioner to `target`, unless it is there."""
    if kept.is_dir() and not target.is_file():
        write_json(target, pq.read_table(kept / "synthetic.parquet")["caption"].to_pylist())


def take_fused(lake: Path, strategies: Collection[str]) -> None:
    """Answer what was asked before, by this study or by one whose captions are kept; the stage `fuse` asks the rest."""
    asking = {strategy: question for strategy, question in _QUESTIONS.items() if strategy in strategies}
    mine = _written(lake)
    kept = [pq.read_table(file).cast(mine.schema) for file in sorted(KEPT.glob("*/fused_captions.parquet"))]
    known = pa.concat_tables([mine, *kept])
    captions = _read(lake / "synthetic_captions", "pair_id", "caption").rename_columns(["pair_id", "synthetic_caption"])
    pairs = _read(lake / "pairs", "pair_id", "raw_caption").join(captions, "pair_id", join_type="inner")
    for strategy, question in asking.items():
        of_strategy = pc.field("strategy") == strategy
        due = pairs.join(mine.filter(of_strategy).select(["pair_id"]), "pair_id", join_type="left anti")
        answers = known.filter(of_strategy)
        found = due.join(_distinct(answers, question), question, join_type="inner")
        rows = answers.take(found["at_min"])
        copied = pc.equal(rows["caption_from"], "synthetic")
        own = {"pair_id": found["pair_id"], "synthetic_caption": found["synthetic_caption"]}
        own["caption"] = pc.if_else(copied, found["synthetic_caption"], rows["caption"])
        write_deltalake(lake / "fused_captions", _with(rows, own), mode="append")


def _distinct(answers: pa.Table, question: list[str]) -> pa.Table:
    """Return each question once, and in `at_min` the first row that answers it."""
    asked = answers.select(question).append_column("at", pa.array(range(len(answers)), pa.int64()))
    return asked.group_by(question, use_threads=False).aggregate([("at", "min")])


def _with(rows: pa.Table, columns: dict[str, pa.ChunkedArray]) -> pa.Table:
    """Return the rows with other values in some columns."""
    for name, values in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
    return rows


def _written(lake: Path) -> pa.Table:
    rows = _read(lake / "fused_captions").filter(pc.field("strategy").isin([*_QUESTIONS]))
    return rows.sort_by([("strategy", "ascending"), ("pair_id", "ascending")])


def _read(table: Path, *columns: str) -> pa.Table:
    return DeltaTable(table).to_pyarrow_table(columns=[*columns] or None)


if __name__ == "__main__":
    places = Path(sys.argv[1]) / sys.argv[2], KEPT / sys.argv[2]
    keep(*places)
    kept_models.keep(*places)
