"""Test sources that others stored: Hugging Face's data sets, MDS, LLaVA, COCO, Flickr30k, TextCaps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.mds import Columns, decoded, encoded
from capsfusion_etl.stages.ingest.config import SourceConfig
from capsfusion_etl.stages.ingest.sources import read
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

Jpeg = Callable[..., bytes]
COCO = {
    "images": [
        {"id": 7, "file_name": "größe.7.jpg", "coco_url": "http://c.example/7.jpg", "license": 2},
        {"id": 8, "file_name": "8.jpg", "coco_url": "http://c.example/8.jpg", "license": 1},
        {"id": 9, "file_name": "../8.jpg", "coco_url": "http://c.example/9.jpg"},
    ],
    "annotations": [
        {"image_id": 7, "caption": "A pier."}, {"image_id": 8, "caption": "A boat."},
        {"image_id": 7, "caption": "A pier in fog."}, {"image_id": 9, "caption": "Nothing."},
    ],
    "licenses": [{"id": 2, "name": "CC-BY"}],
}  # fmt: skip
KARPATHY = {
    "images": [
        {"filename": "1.jpg", "filepath": "val", "split": "test", "sentences": [{"raw": "One."}, {"raw": "Two."}]},
    ]
}
TEXTCAPS = {
    "data": [
        {"image_id": "a", "flickr_original_url": "http://f.example/a.jpg", "caption_str": "A sign."},
        {"image_id": "a", "flickr_original_url": "http://f.example/a.jpg", "caption_str": "A sign with STOP."},
    ]
}
LLAVA = [
    {
        "id": "0001", "image": "00/1.jpg",
        "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A quokka."}],
    },
    {"id": "0002", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
]  # fmt: skip


def rows_of(spark: SparkSession, pairs: Path, **config: Any) -> list[dict[str, Any]]:
    found = read(spark, SourceConfig(str(pairs), **config)).rows
    return sorted((row.asDict() for row in found.collect()), key=lambda row: (row["raw_caption"], row["url"]))


def test_annotations_with_addresses(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(COCO))
    rows = rows_of(spark, tmp_path / "c.json", layout="coco", explode="raw_caption")
    assert [(row["raw_caption"], row["url"]) for row in rows] == [
        ("A boat.", "http://c.example/8.jpg"), ("A pier in fog.", "http://c.example/7.jpg"),
        ("A pier.", "http://c.example/7.jpg"), ("Nothing.", "http://c.example/9.jpg"),
    ]  # fmt: skip
    assert rows[1]["extra"] == {"image": "7", "license": "CC-BY"}
    assert "bytes" not in rows[0]
    with pytest.raises(PySparkException, match=r"has several captions of größe.7.jpg: --explode raw_caption makes"):
        rows_of(spark, tmp_path / "c.json", layout="coco")
    with pytest.raises(PySparkException, match=r"c.json is not of the layout textcaps: it has no 'data'"):
        rows_of(spark, tmp_path / "c.json", layout="textcaps")
    with pytest.raises(InputError, match="no such file or folder"):
        rows_of(spark, tmp_path / "d.json", layout="coco")
    (tmp_path / "k.json").write_text(json.dumps(KARPATHY))
    with pytest.raises(
        PySparkException, match=r"names its pictures by file .*: name their folder, --set source.images="
    ):
        rows_of(spark, tmp_path / "k.json", layout="karpathy", explode="raw_caption")
    (tmp_path / "t.json").write_text(json.dumps(TEXTCAPS))
    rows = rows_of(spark, tmp_path / "t.json", layout="textcaps", explode="raw_caption")
    assert [row["raw_caption"] for row in rows] == ["A sign with STOP.", "A sign."]


def test_annotations_with_pictures(spark: SparkSession, tmp_path: Path, jpeg: Jpeg) -> None:
    pictures = tmp_path / "pictures"
    (pictures / "00").mkdir(parents=True)
    (pictures / "val").mkdir()
    for number, name in enumerate(("größe.7.jpg", "00/1.jpg", "val/1.jpg")):
        (pictures / name).write_bytes(jpeg("teal", (40 + number, 30)))
    (tmp_path / "8.jpg").write_bytes(b"outside")
    for name, data in (("coco", COCO), ("karpathy", KARPATHY), ("llava", LLAVA)):
        (tmp_path / f"{name}.json").write_text(json.dumps(data))
    config = {"images": str(pictures), "explode": "raw_caption"}
    rows = rows_of(spark, tmp_path / "coco.json", layout="nocaps", **config)
    there = (pictures / "größe.7.jpg").read_bytes()
    assert [bytes(row["bytes"]) for row in rows] == [b"", there, there, b""]  # no file, and one outside of the folder
    rows = rows_of(spark, tmp_path / "karpathy.json", layout="karpathy", **config)
    assert [row["url"] for row in rows] == [f"file://{pictures}/val/1.jpg"] * 2
    assert rows[0]["extra"] == {"split": "test"}
    rows = rows_of(spark, tmp_path / "llava.json", layout="llava", **config)
    assert [(row["raw_caption"], len(row["bytes"]) > 0) for row in rows] == [("A quokka.", True), ("Hello.", False)]
    with pytest.raises(InputError, match=r"source.images: goes with source.layout coco"):
        SourceConfig(str(tmp_path), images=str(pictures))


def test_paths_of_pictures_are_told(spark: SparkSession, tmp_path: Path, jpeg: Jpeg) -> None:
    pictures = [{"bytes": jpeg("red"), "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(pictures, kind), "caption": ["One.", "Two."]})
    pq.write_table(table, tmp_path / "p.parquet")
    rows = rows_of(spark, tmp_path / "p.parquet", columns={"raw_caption": "caption"})
    assert [row["url"].partition(":")[0] for row in rows] == ["sha256", "b.jpg"]


def test_a_data_set_saved_to_disk(spark: SparkSession, tmp_path: Path, jpeg: Jpeg) -> None:
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "sentences": datasets.Sequence(datasets.Value("string")),
         "label": datasets.ClassLabel(names=["a", "b"]), "seen": datasets.Value("float16")}
    )  # fmt: skip
    data = {
        "image": [{"bytes": jpeg("red", (40, 30)), "path": "a.jpg"}, None], "sentences": [["One.", "Two."], ["Three."]],
        "label": [0, 1], "seen": [0.5, 1.5],
    }  # fmt: skip
    made = datasets.Dataset.from_dict(data, features)
    datasets.DatasetDict(train=made, test=made).save_to_disk(tmp_path / "saved")
    named = {"columns": {"raw_caption": "sentences"}, "explode": "raw_caption"}
    source = read(spark, SourceConfig(str(tmp_path / "saved"), **named))
    rows = sorted((row.asDict() for row in source.rows.collect()), key=lambda row: row["raw_caption"])
    assert [row["raw_caption"] for row in rows] == ["One.", "One.", "Three.", "Three.", "Two.", "Two."]
    assert bytes(rows[0]["bytes"]) == jpeg("red", (40, 30))
    assert rows[0]["url"].startswith("sha256:")
    assert rows[2]["extra"] == {"label": "1"}
    assert source.left_out == {"seen": "halffloat"}
    (tmp_path / "saved" / "test" / "data-00000-of-00001.arrow").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"cannot read .*data-00000-of-00001.arrow: is it damaged"):
        read(spark, SourceConfig(str(tmp_path / "saved"), **named))


def test_mds(spark: SparkSession, tmp_path: Path, jpeg: Jpeg) -> None:
    columns = Columns(
        ("caption", "count", "image", "scores"), ("str", "int32", "jpeg", "ndarray"), (None, 4, None, None)
    )
    sizes = b"".join(len(part).to_bytes(4, "little") for part in (b"A pier.", jpeg("red", (40, 30)), b"xy"))
    sample = sizes + b"A pier." + (-7).to_bytes(4, "little", signed=True) + jpeg("red", (40, 30)) + b"xy"
    head = json.dumps(columns.told()).encode()
    begin = 4 + 8 + len(head)
    shard = b"".join(n.to_bytes(4, "little") for n in (1, begin, begin + len(sample))) + head + sample
    (tmp_path / "shard.00000.mds.gz").write_bytes(pa.compress(shard, "gzip", asbytes=True))
    about = columns.told() | {
        "compression": "gz:9", "samples": 1, "raw_data": {"basename": "shard.00000.mds"},
        "zip_data": {"basename": "shard.00000.mds.gz"},
    }  # fmt: skip
    (tmp_path / "index.json").write_text(json.dumps({"version": 2, "shards": [about]}))
    source = read(spark, SourceConfig(str(tmp_path), columns={"raw_caption": "caption", "image": "image"}))
    [row] = source.rows.collect()
    assert (row["raw_caption"], bytes(row["bytes"]), row["extra"]) == (
        "A pier.",
        jpeg("red", (40, 30)),
        {"count": "-7"},
    )
    assert source.left_out == {"scores": "ndarray"}
    with pytest.raises(ValueError, match=r"it has \d+ bytes, not \d+"):
        list(decoded(shard[:-9], columns, ("caption",)))
    with pytest.raises(ValueError, match="other sizes than its offsets say"):
        list(decoded(shard[:begin] + b"\x08" + shard[begin + 1 :], columns, ("caption",)))
    ours = Columns.plain(["caption", "image"], binary=["image"])
    rows = [{"caption": "x" * 5_000, "image": b"\0"}, {"caption": None, "image": None}]
    whole = b"".join(encoded(iter(rows), ours))
    assert list(decoded(whole, ours, ours.names)) == [rows[0], {"caption": "", "image": b""}]


def test_data_comp_by_name(spark: SparkSession, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"uid": ["u"], "url": ["http://d.example/1.jpg"], "text": ["A pier"]}), tmp_path / "d.parquet"
    )
    [row] = rows_of(spark, tmp_path / "d.parquet", layout="datacomp")
    assert (row["url"], row["raw_caption"], row["extra"]) == ("http://d.example/1.jpg", "A pier", {"uid": "u"})
