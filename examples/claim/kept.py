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
# What the language model is shown, by strategy; it answers equal questions alike. (Whether it is asked at all may
# depend on the synthetic caption, too: `judge.abstain`. With the captions of this world it does not.)
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
        first = answers.take(_distinct(answers, question)["at_min"])
        once.append(_with(first, {"pair_id": pa.array([""] * len(first))}))  # any pair may ask
        once.append(_unlike(answers, first, question))  # batches of other questions can change a rounding, and a word
    write_parquet(kept / "fused_captions.parquet", pa.concat_tables(once), compression="zstd", compression_level=19)


def take_synthetic(kept: Path, target: Path) -> None:
    """Write the kept captions of the captioner to `target`, unless it is there."""
    if kept.is_dir() and not target.is_file():
        write_json(target, pq.read_table(kept / "synthetic.parquet")["caption"].to_pylist())


def take_fused(lake: Path, strategies: Collection[str], own: Path) -> None:
    """Append to the lake's fused captions the answers to its questions that it, or a kept study, has already.

    A rejected rewrite has the synthetic caption of the pair that asks.

    Args:
        lake: Folder of the lake, with captions of the captioner.
        strategies: Strategies of the study.
        own: Folder of the kept answers of this very study, which come first; then those of all others.
    """
    mine = _written(lake)
    files = sorted(KEPT.glob("*/fused_captions.parquet"), key=lambda file: (file.parent != own, file))
    known = pa.concat_tables([mine, *(pq.read_table(file).cast(mine.schema) for file in files)])
    captions = _read(lake / "synthetic_captions", "pair_id", "caption").rename_columns(["pair_id", "synthetic_caption"])
    pairs = _read(lake / "pairs", "pair_id", "raw_caption").join(captions, "pair_id", join_type="inner")
    for strategy in [name for name in _QUESTIONS if name in strategies]:
        of_strategy = pc.field("strategy") == strategy
        due = pairs.join(mine.filter(of_strategy).select(["pair_id"]), "pair_id", join_type="left anti")
        found, question = [], _QUESTIONS[strategy]
        for keys in (["pair_id", *question], question):  # what was kept of this pair comes first
            found.append(_answered(due, known.filter(of_strategy), keys))
            due = due.join(found[-1].select(["pair_id"]), "pair_id", join_type="left anti")
        write_deltalake(lake / "fused_captions", pa.concat_tables(found), mode="append")


def _answered(due: pa.Table, answers: pa.Table, keys: list[str]) -> pa.Table:
    """Return the answers of the pairs in `due` to which `answers` have a row with equal `keys`."""
    found = due.join(_distinct(answers, keys), keys, join_type="inner")
    rows = answers.take(found["at_min"])
    own = {"pair_id": found["pair_id"], "synthetic_caption": found["synthetic_caption"]}
    copied = pc.equal(rows["caption_from"], "synthetic")
    return _with(rows, own | {"caption": pc.if_else(copied, found["synthetic_caption"], rows["caption"])})


def _unlike(answers: pa.Table, first: pa.Table, question: list[str]) -> pa.Table:
    """Return the rows of `answers` whose answer is not the one that `first` has for their question."""
    places = answers.select(question).append_column("at", pa.array(range(len(answers)), pa.int64()))
    both = places.join(first.select([*question, "caption", "caption_from"]), question, join_type="inner").sort_by("at")
    mine = answers.take(both["at"])
    alike = pc.or_(pc.equal(mine["caption_from"], "synthetic"), pc.equal(mine["caption"], both["caption"]))
    return mine.filter(pc.invert(pc.and_(pc.equal(mine["caption_from"], both["caption_from"]), alike)))


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
