"""Test the file formats and column names of sources, and the pair ids that ingest assigns."""

from collections.abc import Callable
from pathlib import Path

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import pair_id
from capsfusion_etl.lake.run import Run
from capsfusion_etl.stages.ingest.config import SourceConfig
from capsfusion_etl.stages.ingest.sources import read
from capsfusion_etl.stages.ingest.stage import ingest, with_pair_id
from pyspark.sql import SparkSession


def written(spark: SparkSession, folder: Path, kind: str) -> Path:
    """Write two rows in the LAION-COCO layout, in the format `kind`; return the path."""
    rows = [
        ("http://a.example/1.jpg", 'A "quoted", bridge', "A bridge."),
        ("http://a.example/2.jpg", "Cat\tGhent", None),
    ]
    frame = spark.createDataFrame(rows, "URL string, TEXT string, top_caption string").coalesce(1)
    if kind in ("csv", "tsv"):
        path = folder / f"rows.{kind}"
        frame.toPandas().to_csv(path, sep="," if kind == "csv" else "\t", index=False)
        return path
    if kind == "jsonl":
        path = folder / "rows.jsonl"
        frame.toPandas().to_json(path, orient="records", lines=True)
        return path
    frame.write.format(kind).save(str(folder / "rows"))
    return folder / "rows"


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "jsonl", "delta"])
def test_formats(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    rows = read(spark, SourceConfig(pairs=str(written(spark, tmp_path, kind)))).rows.orderBy("url").collect()
    assert [(r["url"], r["raw_caption"]) for r in rows] == [
        ("http://a.example/1.jpg", 'A "quoted", bridge'),
        ("http://a.example/2.jpg", "Cat\tGhent"),
    ]
    assert rows[0]["extra"] == {"synthetic_caption": "A bridge."}
    assert rows[1]["extra"] == {}


def test_the_capsfusion_layout_keeps_the_rest_as_extra(spark: SparkSession, tmp_path: Path) -> None:
    columns = "image_url string, laion_2b string, laion_coco string, capsfusion string"
    frame = spark.createDataFrame([("http://a.example/1.jpg", "raw", "seen", "fused")], columns)
    frame.write.parquet(str(tmp_path / "rows"))
    [row] = read(spark, SourceConfig(pairs=str(tmp_path / "rows"))).rows.collect()
    assert row["raw_caption"] == "raw"
    assert row["extra"] == {"synthetic_caption": "seen", "capsfusion": "fused"}


def test_columns_can_be_named(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("link,alt.text\nhttp://a.example/1.jpg,A cat\n")
    config = SourceConfig(pairs=str(path), columns={"raw_caption": "alt.text", "url": "link"})
    [row] = read(spark, config).rows.collect()
    assert (row["url"], row["raw_caption"]) == ("http://a.example/1.jpg", "A cat")


def csv(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("none.parquet", None, {}, "no such file or folder"),
        ("bad.parquet", b"this is no parquet", {}, "cannot read .* as parquet"),
        ("rows.csv", b"link,alt\n1,2\n", {}, "none of the known layouts.* it has link, alt"),
        ("rows.csv", b"link,alt\n1,2\n", {"raw_caption": "TEXT"}, "has no column 'TEXT'; it has link, alt"),
        ("rows.csv", b"link,alt\n1,2\n", {"caption": "alt"}, "there is no such field"),
        ("rows.xyz", b"a", {}, "cannot tell the format"),
    ],
)
def test_bad_input_is_one_clear_line(
    spark: SparkSession, tmp_path: Path, name: str, content: bytes | None, columns: dict[str, str], message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(spark, SourceConfig(pairs=str(tmp_path / name), columns=columns))
    assert "\n" not in str(caught.value)


def test_pair_ids_are_those_of_the_pure_function(spark: SparkSession) -> None:
    frame = spark.createDataFrame([("HTTP://A.example:80/x", "Zürich")], "url string, raw_caption string")
    assert with_pair_id(frame).collect()[0]["pair_id"] == pair_id("http://a.example/x", "Zürich")


def test_ingest_adds_once_and_counts_what_repeats(run: Run, pairs_file: Path, tmp_path: Path) -> None:
    source = tmp_path / "twice.jsonl"
    source.write_text(pairs_file.read_text() + pairs_file.read_text().splitlines()[0] + "\n")
    for _ in range(2):
        ingest(run, SourceConfig(pairs=str(source)))
        run.run_id += "x"
    assert run.lake.read("pairs").count() == 7
    [repeated] = run.lake.read("rejects").collect()
    assert (repeated["stage"], repeated["reason"], repeated["detail"]) == (
        "ingest",
        "repeated_row",
        "the source holds it 2 times",
    )
    counts = run.lake.read("runs").orderBy("started_at").select("rows_in", "rows_out").collect()
    assert [tuple(c) for c in counts] == [(8, 7), (8, 0)]
