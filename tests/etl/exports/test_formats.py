"""Test that those who read an export get every pair once, with its caption and its picture."""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyspark
import pytest
from capsfusion_etl.exports.config import ALWAYS, FORMATS
from capsfusion_etl.exports.formats.webdataset import header
from exported import Pairs, Published
from PIL import Image

COLUMNS = ("raw", "synthetic", "ledger", "verdict", "url", "source", "extra")
# Peers read in processes of their own: their warnings are not ours.
READ_TARS = """
import json, sys
from argparse import Namespace
import numpy, webdataset
from open_clip_train.data import get_wds_dataset
found = [sample for tar in sys.argv[1:] for sample in webdataset.WebDataset(tar, shardshuffle=False)]
told = Namespace(train_data="::".join(sys.argv[1:]), train_num_samples=None, train_data_upsampling_factors=None,
    dataset_resampled=False, seed=0, batch_size=4, workers=0, world_size=1)
loaded = get_wds_dataset(told, numpy.asarray, True, tokenizer=lambda text: [text]).dataloader
print(json.dumps({
    "samples": {s["__key__"]: {k: v.hex() for k, v in s.items() if k in ("jpg", "txt", "json")} for s in found},
    "count": len(found), "open_clip_samples": loaded.num_samples,
    "open_clip_texts": [text for _, texts in loaded for text in texts]}))
"""
READ_MDS = """
import json, sys
from streaming import StreamingDataset
sets = [StreamingDataset(local=sys.argv[1], split=split, batch_size=1) for split in ("train", "held_out")]
rows = [row for one in sets for row in one]
print(json.dumps([{k: v.hex() if isinstance(v, bytes) else v for k, v in row.items()} for row in rows]))
"""


def output_of(program: str, *arguments: str, **environment: str) -> Any:
    """Run a Python program; return what the last line that it prints says, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def exported(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Function that exports the snapshot as a format, in shards of 1 MB with other columns."""
    home = tmp_path_factory.mktemp("exports")

    def make(form: str) -> Path:
        record = published.export(home / form, form, columns=COLUMNS, shard_mb=1)
        assert record.rows == 12
        if pyspark.__version__ >= "4.1":  # older versions bundle a Parquet that limits row groups by bytes only
            assert len(record.shards) > 2
        return home / form

    return make


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MosaicML Streaming, in a folder of its own: it asks for transformers 4."""
    folder = tmp_path_factory.mktemp("peers")
    wanted = ["mosaicml-streaming==0.13.0", "xxhash<4", "zstd", "python-snappy", "cramjam", "catalogue"]
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--target", folder, *wanted], check=True)
    return folder


def test_webdataset_and_open_clip(published: Published, exported: Callable[[str], Path]) -> None:
    folder = exported("webdataset")
    tars = sorted(map(str, folder.glob("*.tar")))
    found = output_of(READ_TARS, *tars)
    samples = found["samples"]
    pairs = {key: (bytes.fromhex(s["txt"]).decode(), bytes.fromhex(s["jpg"])) for key, s in samples.items()}
    assert (pairs, found["count"]) == (published.pairs(), 12)
    about = [json.loads(bytes.fromhex(sample["json"])) for sample in samples.values()]
    assert {row["split"] for row in about} == {"train", "held_out"}
    assert all(row["raw_caption"].startswith(("Quokka", "The harbour")) for row in about)
    assert all("kept" in json.loads(row["ledger"]) for row in about)
    assert found["open_clip_samples"] == 12  # by sizes.json
    assert sorted(found["open_clip_texts"]) == sorted(caption for caption, _ in published.pairs().values())
    listed = subprocess.run(["tar", "-tf", tars[0]], check=True, capture_output=True, text=True)
    assert not listed.stderr
    about = tarfile.TarInfo(f"{'a' * 64}.jpg")
    for about.size in (0, 511, 20_000, 8**11 - 1):
        assert header(about.name.encode(), about.size) == about.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face(published: Published, exported: Callable[[str], Path], tmp_path: Path, streaming: bool) -> None:
    import datasets

    folder = exported("huggingface")
    loaded = datasets.load_dataset(str(folder), streaming=streaming, cache_dir=str(tmp_path))
    assert set(loaded) == {"train", "held_out"}
    assert isinstance(loaded["train"].features["image"], datasets.Image)
    first = next(iter(loaded["train"]))
    assert isinstance(first["image"], Image.Image)
    rows = [row for split in loaded.values() for row in split.cast_column("image", datasets.Image(decode=False))]
    assert {row["pair_id"]: (row["caption"], row["image"]["bytes"]) for row in rows} == published.pairs()
    assert len(rows) == 12
    assert list(first) == [*ALWAYS, "image", "raw_caption", "synthetic_caption", "ledger", "verdict", "url", "source", "extra"]  # fmt: skip  # noqa: E501


def test_llava(published: Published, exported: Callable[[str], Path]) -> None:
    folder = exported("llava")
    entries = [entry for split in ("train", "held_out") for entry in json.loads((folder / f"{split}.json").read_text())]
    for entry in entries:
        question, answer = entry["conversations"]
        assert (question["from"], answer["from"]) == ("human", "gpt")
        assert question["value"].startswith("<image>\n")
    pairs = {e["id"]: (e["conversations"][1]["value"], (folder / e["image"]).read_bytes()) for e in entries}
    assert (pairs, len(entries)) == (published.pairs(), 12)


def test_mds(published: Published, exported: Callable[[str], Path], streaming: Path) -> None:
    rows = output_of(READ_MDS, str(exported("mds")), PYTHONPATH=str(streaming))
    pairs = {row["pair_id"]: (row["caption"], bytes.fromhex(row["image"])) for row in rows}
    assert (pairs, len(rows)) == (published.pairs(), 12)
    assert all(row["url"].startswith("http://img") for row in rows)


def test_lance(published: Published, exported: Callable[[str], Path]) -> None:
    import lance

    folder = exported("lance")
    rows = [row for s in ("train", "held_out") for row in lance.dataset(folder / f"{s}.lance").to_table().to_pylist()]
    pairs: Pairs = {row["pair_id"]: (row["caption"], row["image"]) for row in rows}
    assert (pairs, len(rows)) == (published.pairs(), 12)
    assert [row["caption"] for row in lance.dataset(folder / "train.lance").take([3], columns=["caption"]).to_pylist()]


def test_parquet_in_duckdb(published: Published, exported: Callable[[str], Path]) -> None:
    import duckdb

    found = duckdb.sql(f"SELECT * FROM '{exported('parquet')}/*.parquet' ORDER BY pair_id")
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
    assert {row["pair_id"]: (row["caption"], row["image"]) for row in rows} == published.pairs()
    assert {row["strategy"] for row in rows} == {"fused"}
    assert {row["verdict"] for row in rows} == {"accepted", "repetition"}
    assert {row["source"] for row in rows} == {"photos"}
    assert '"license": "CC-BY-4.0"' in str([row["extra"] for row in rows])


def test_addresses_only(published: Published, tmp_path: Path) -> None:
    import pyarrow.dataset as ds

    published.export(tmp_path / "out", "parquet", images=False)
    rows = ds.dataset([str(p) for p in (tmp_path / "out").glob("*.parquet")]).to_table()
    assert rows.column_names == [*ALWAYS, "url"]
    assert all(url.startswith("http://img") for url in rows["url"].to_pylist())


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "lance"])
def test_the_same_snapshot_gives_the_same_bytes(
    published: Published, exported: Callable[[str], Path], tmp_path: Path, form: str
) -> None:
    first = exported(form)
    published.export(tmp_path / "again", form, columns=COLUMNS, shard_mb=1)
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    assert [f for f in files if (first / f).read_bytes() != (tmp_path / "again" / f).read_bytes()] == []
    assert not list(first.glob("_export*"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_card_and_croissant(published: Published, exported: Callable[[str], Path]) -> None:
    import mlcroissant
    import yaml

    cards = Path(published.lake.folder, "cards")
    assert "12 image-text pairs (" in (cards / "first.md").read_text()
    snapshot = mlcroissant.Dataset(jsonld=str(cards / "first.croissant.json"))
    assert not snapshot.metadata.ctx.issues.errors
    assert len(snapshot.metadata.distribution) == len(
        list(Path(published.lake.root, "training_pairs").rglob("*.parquet"))
    )
    for form in ("huggingface", "webdataset", "llava"):
        folder = exported(form)
        card = (folder / "README.md").read_text()
        matter = yaml.safe_load(card.split("---\n")[1])
        assert matter["task_categories"] == ["image-to-text"]
        assert "CC-BY-4.0" in card
        assert "@inproceedings{yu2024capsfusion" in card
        assert "capsfusion apply" in card
        described = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))
        assert not described.metadata.ctx.issues.errors
        if form == "huggingface":
            rows = list(described.records("held_out"))
            wanted = {caption for caption, _ in published.pairs().values()}
            assert rows
            assert {row["held_out/caption"].decode() for row in rows} < wanted
            assert isinstance(rows[0]["held_out/image"], Image.Image | bytes | io.BytesIO)
