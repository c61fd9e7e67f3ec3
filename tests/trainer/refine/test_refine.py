"""Tests of `refine`: selection of triplets, tuning, faults and scores."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from capsfusion_etl.errors import InputError, RetryError, explain
from capsfusion_trainer.refine.config import of_assignments, smollm2_135m_cpu
from capsfusion_trainer.refine.run import refine
from capsfusion_trainer.refine.score import score
from capsfusion_trainer.refine.selection import kept_facts
from capsfusion_trainer.refine.triplets import Triplet, is_held_out, read_triplets, teachable
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

TINY = replace(
    smollm2_135m_cpu(), lora_rank=2, epochs=1.0, batch_size=4, evaluate_every=2, held_out=0.3, max_tokens=200
)
PLACES = ["Lisbon", "Ghent", "Oslo", "Zurich", "Kew", "Porto", "Turin", "Bergen", "Leiden", "Graz"]


def rows() -> list[dict[str, str]]:
    good = [
        {
            "raw_caption": f"Bridge {place} {year}",
            "synthetic_caption": "A bridge over water.",
            "caption": f"A bridge over water in {place}, {year}.",
        }
        for place in PLACES
        for year in (1998, 2003)
    ]
    copies_caption = {**good[0], "raw_caption": "Old bridge Lisbon", "caption": "Old bridge Lisbon."}
    echoed = {**good[0], "caption": "Sentence 1 is about the bridge in Lisbon in 1998."}
    return [*good, copies_caption, echoed]


@pytest.fixture
def triplets(tmp_path: Path) -> Path:
    path = tmp_path / "triplets.parquet"
    pq.write_table(pa.Table.from_pylist(rows()), path)
    return path


def test_only_what_is_worth_learning_is_taught(triplets: Path) -> None:
    kept, left = teachable(read_triplets(str(triplets)))
    assert len(kept) == 20
    assert dict(left) == {"raw_copy": 1, "instruction_echo": 1}


def test_a_triplet_with_a_missing_field_is_left_out_and_counted(tmp_path: Path) -> None:
    broken = [{**rows()[0], name: value} for name in rows()[0] for value in (None, "")]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_pylist([*rows()[:20], *broken]), path)
    kept, left = teachable(read_triplets(str(path)))
    assert len(kept) == 20
    assert dict(left) == {"missing_field": 6}
    assert score(read_triplets(str(path))).shares["empty"] == pytest.approx(2 / 26)


def test_a_teacher_that_forgets_is_not_followed() -> None:
    forgetful = Triplet("a" * 64, "Harbour Bridge, Lisbon, 1998", "A bridge.", "The bridge is in Lisbon.")
    assert teachable([forgetful])[0] == [forgetful]
    assert teachable([forgetful], min_recall=0.9) == ([], {"low_recall": 1})


def test_the_split_follows_the_pair(triplets: Path) -> None:
    all_of_them = read_triplets(str(triplets))
    held_out = [t for t in all_of_them if is_held_out(t, 0.3)]
    assert 0 < len(held_out) < len(all_of_them)
    assert held_out == [t for t in read_triplets(str(triplets)) if is_held_out(t, 0.3)]


def test_a_model_is_tuned_saved_and_loads_again(triplets: Path, tiny_llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = refine(str(triplets), str(tiny_llama), TINY, out)
    assert result["triplets"] + result["held_out"] == 20
    assert (out / "model/adapter_model.safetensors").is_file()
    assert "raw_copy 1" in (out / "model/README.md").read_text()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert any("loss" in line for line in lines)
    assert (result["chosen_by"], result["best"]) == ("eval_kept", max(line.get("eval_kept", 0.0) for line in lines))
    assert refine(str(triplets), str(tiny_llama), TINY, out) == result

    from peft import PeftModel

    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama), str(out / "model"))
    assert merged.merge_and_unload().config.vocab_size == 258


def test_without_the_marker_nothing_counts_as_finished(
    triplets: Path, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("capsfusion_trainer.refine.run.write_card", killed)
    with pytest.raises(KeyboardInterrupt):
        refine(str(triplets), str(tiny_llama), TINY, tmp_path / "out")
    assert not (tmp_path / "out/refined.json").exists()
    monkeypatch.undo()
    assert refine(str(triplets), str(tiny_llama), TINY, tmp_path / "out")["steps"] > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read triplets from"),
        (b"no parquet", "cannot read triplets from"),
        ([{"raw_caption": "a", "text": "b"}], "it has raw_caption, text"),
        (rows()[-2:], "triplets are fit to learn from, too few"),
    ],
)
def test_triplets_that_are_none(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "t.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, list):
        pq.write_table(pa.Table.from_pylist(content), path)
    with pytest.raises(InputError, match=message):
        refine(str(path), "nowhere", TINY, tmp_path / "out")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's writer thread
@pytest.mark.parametrize("room", [20_000, 68_000, 154_000])  # fails while writing the weights, the optimizer, the end
def test_a_full_disk_leaves_no_adapter_that_loads(
    triplets: Path, tiny_llama: Path, small_disk: Callable[[int], Path], room: int
) -> None:
    disk = small_disk(room)
    with pytest.raises((OSError, RuntimeError, SafetensorError)) as caught:
        refine(str(triplets), str(tiny_llama), TINY, disk / "out")
    assert isinstance(explain(caught.value), RetryError)
    assert not (disk / "out/model").exists()
    assert not (disk / "out/refined.json").exists()
    small_disk(50_000_000)
    refine(str(triplets), str(tiny_llama), TINY, disk / "out")
    assert (disk / "out/model/adapter_model.safetensors").is_file()


def test_a_base_that_is_not_there(triplets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="cannot load the base model"):
        refine(str(triplets), str(tmp_path / "none"), TINY, tmp_path / "out")


def test_a_folder_of_another_run_is_refused(triplets: Path, tiny_llama: Path, tmp_path: Path) -> None:
    out, less = tmp_path / "out", tmp_path / "less.parquet"
    refine(str(triplets), str(tiny_llama), TINY, out)
    with pytest.raises(InputError, match="belongs to a run with another config: choose another --out"):
        refine(str(triplets), str(tiny_llama), replace(TINY, lora_rank=4), out)
    pq.write_table(pa.Table.from_pylist(rows()[1:]), less)
    with pytest.raises(InputError, match="a run with another triplets"):
        refine(str(less), str(tiny_llama), TINY, out)
    with pytest.raises(InputError, match="a run with another base"):
        refine(str(triplets), "elsewhere", TINY, out)
    base = Path(shutil.copytree(tiny_llama, tmp_path / "base"))
    again = tmp_path / "again"
    refine(str(triplets), str(base), TINY, again)
    AutoModelForCausalLM.from_config(AutoModelForCausalLM.from_pretrained(base).config).save_pretrained(base)
    with pytest.raises(InputError, match="a run with another base"):  # other weights under the same name
        refine(str(triplets), str(base), TINY, again)
    (again / "claim.json").write_text("{")
    with pytest.raises(InputError, match=r"claim\.json is damaged"):
        refine(str(triplets), str(base), TINY, again)
    (again / "claim.json").unlink()
    with pytest.raises(InputError, match=r"but not what it was made of"):
        refine(str(triplets), str(base), TINY, again)


def test_triplets_that_are_too_long_are_counted(triplets: Path, tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"fit to learn from, too few; left out: .*too_long"):
        refine(str(triplets), str(tiny_llama), replace(TINY, max_tokens=8), tmp_path / "out")
    assert not (tmp_path / "out").exists()  # other settings may use it


def test_recipes() -> None:
    assert of_assignments("smollm2_135m_cpu", ["lora_rank=4"]).lora_rank == 4
    assert of_assignments("llama2_13b", []).prompt == "paper-v1"
    assert of_assignments("llama2_13b", ["learning_rate=1e-4"]).learning_rate == 1e-4
    with pytest.raises(InputError, match="there is no recipe 'x'"):
        of_assignments("x", [])
    for wrong, message in (
        ("rank=4", "unknown key"), ("batch_size=0", "must be 1 or more"), ("epochs=0.0", "more than 0"),
        ("learning_rate=.nan", "learning_rate"), ("lora_dropout=2.0", "must be below 1"), ("max_rows=-1", "1 or more"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            of_assignments("smollm2_135m_cpu", [wrong])


def test_a_caption_counts_by_the_facts_that_it_keeps() -> None:
    triplet = Triplet("a" * 64, "Harbour Bridge, Lisbon, 1998", "A bridge over water.", "")
    assert kept_facts(triplet, "The Harbour Bridge in Lisbon crosses water in 1998.") == 1.0
    assert 0 < (kept_facts(triplet, "A bridge over water in Lisbon.") or 0) < 1
    assert kept_facts(triplet, "A bridge over water in Lisbon, built in 1871.") is None  # invented
    assert kept_facts(replace(triplet, raw_caption="a bridge"), "A bridge over water.") == 1.0


def test_a_batch_is_divided_by_the_ranks() -> None:
    paper = of_assignments("llama2_13b", [])
    assert [paper.divided(ranks) for ranks in (1, 2, 8, 16)] == [(16, 8), (16, 4), (16, 1), (8, 1)]
    with pytest.raises(InputError, match="128 rows are not divided by 3 ranks times 16"):
        paper.divided(3)


def test_scores(triplets: Path) -> None:
    card = score(read_triplets(str(triplets)))
    assert card.rows == 22
    assert card.shares["instruction_echo"] == pytest.approx(1 / 22)
    assert card.raw_copy == pytest.approx(1 / 22)
    assert card.accepted == pytest.approx(21 / 22)
    assert card.accepted_recall == 1.0
    assert 0 < card.distinct_3 < 1


def test_an_empty_score() -> None:
    assert score([]).accepted == 0.0
