"""Test sources whose files differ, nest or hold columns that nobody can read: nothing is guessed in silence."""

import datetime as dt
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.lake.run import Run
from capsfusion_etl.operations.complete import inputs
from capsfusion_etl.stages.ingest.config import SourceConfig
from capsfusion_etl.stages.ingest.sources import read
from capsfusion_etl.stages.ingest.stage import ingest, source_version
from pyspark.sql import Row, SparkSession

URL = "http://a.example/"
CAPTIONS = pa.list_(pa.string())


def parquet(path: Path, **columns: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def rows(spark: SparkSession, path: Path | str, **config: object) -> list[Row]:
    return read(spark, SourceConfig(pairs=str(path), **config)).rows.orderBy("url", "raw_caption").collect()  # type: ignore[arg-type]


def test_columns_go_by_name_in_each_csv(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"url,raw_caption\n{URL}1?x=1&amp;y=2,Ox\n")
    (tmp_path / "b.csv").write_text(f"raw_caption,url,synthetic_caption\nCow,{URL}2,A cow.\n")
    (tmp_path / "_stats.csv").write_text("nothing\n")
    one, two = rows(spark, tmp_path)
    assert (one.url, one.raw_caption, one.extra) == (f"{URL}1?x=1&y=2", "Ox", {})
    assert (two.url, two.raw_caption, two.extra) == (f"{URL}2", "Cow", {"synthetic_caption": "A cow."})
    assert [r.url for r in rows(spark, tmp_path / "b*.csv")] == [f"{URL}2"]
    before = source_version(str(tmp_path / "b*.csv"))
    assert inputs({"source": {"pairs": str(tmp_path / "b*.csv")}}) is None
    (tmp_path / "b2.csv").write_text("raw_caption,url\n")
    assert source_version(str(tmp_path / "b*.csv")) != before
    assert len(rows(spark, tmp_path.as_uri())) == 2
    (tmp_path / "c.csv").write_text("raw_caption,link\nHen,x\n")
    with pytest.raises(InputError, match=r"c\.csv has no column 'url', unlike other files"):
        rows(spark, tmp_path)


def test_schemas_of_parquet_files_are_merged(spark: SparkSession, tmp_path: Path) -> None:
    parquet(tmp_path / "year=2023" / "a.parquet", url=[f"{URL}1"], raw_caption=["Ox"], width=pa.array([7], pa.uint16()))
    parquet(
        tmp_path / "year=2024" / "b.parquet", url=[f"{URL}2"], raw_caption=pa.array(["Cow"]).dictionary_encode(),
        width=["wide"], synthetic_caption=["A cow."],
    )  # fmt: skip
    one, two = rows(spark, tmp_path)
    assert one.extra == {"width": "7", "year": "2023"}
    assert (two.raw_caption, two.extra) == ("Cow", {"width": "wide", "synthetic_caption": "A cow.", "year": "2024"})
    parquet(tmp_path / "year=2024" / "c.parquet", url=[f"{URL}3"], raw_caption=pa.array([["Hen"]], CAPTIONS))
    with pytest.raises(InputError, match=r"raw_caption.* is text in .*a\.parquet, but array<string> in .*c\.parquet"):
        rows(spark, tmp_path)


def test_columns_that_nobody_can_read_are_left_out_and_named(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = parquet(
        tmp_path / "odd.parquet", url=[f"{URL}1"], raw_caption=["Ox"], taken=pa.array([1], pa.timestamp("ns")),
        at=pa.array([dt.time(12)]), embedding=[b"\xff\xfe"], tags=[["a", "b"]],
        seen=pa.array([dt.datetime(2024, 5, 1, tzinfo=dt.UTC)], pa.timestamp("us", tz="UTC")),
    )  # fmt: skip
    ingest(run, SourceConfig(pairs=str(path)))
    [pair] = run.lake.read("pairs").collect()
    assert pair.raw_caption == "Ox"
    assert pair.extra == {"tags": '["a","b"]', "seen": pair.extra["seen"]}
    told = capsys.readouterr().err
    for column in ("taken (timestamp[ns])", "at (time64[us])", "embedding (binary)"):
        assert column in told


def test_which_column_has_the_addresses(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"url,alt\n{URL}1?a=1&#038;b=2,Ox\n")
    [row] = rows(spark, tmp_path / "a.csv", columns={"raw_caption": "alt"})
    assert (row.url, row.raw_caption) == (f"{URL}1?a=1&b=2", "Ox")
    (tmp_path / "b.csv").write_text(f"link,alt\n{URL}1,Ox\n")
    with pytest.raises(InputError, match="which column has the addresses\\? Name it with --column url=NAME"):
        rows(spark, tmp_path / "b.csv", columns={"raw_caption": "alt"})
    with pytest.raises(InputError, match="limit: must be 0 or more"):
        SourceConfig(limit=-1)


def test_columns_of_parquet_that_spark_cannot_read(spark: SparkSession, tmp_path: Path) -> None:
    odd = parquet(
        tmp_path / "100% x#y/a{b}[1].parquet", url=[f"{URL}1"], raw_caption=["Ox"],
        big=pa.array([None], pa.decimal256(60)),
    )  # fmt: skip
    [row] = rows(spark, odd)
    assert (row.raw_caption, row.extra) == ("Ox", {})
    times = pa.array([dt.datetime(2020, 1, 1)], pa.timestamp("ns"))
    with pytest.raises(InputError, match=r"of its columns Spark cannot read raw_caption \(timestamp\[ns\]\)"):
        rows(spark, parquet(tmp_path / "ns.parquet", url=[URL], raw_caption=times))


def test_lists_of_captions_beside_images(
    spark: SparkSession, tmp_path: Path, jpeg: Callable[..., bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "packed").mkdir()
    (tmp_path / "1.jpg").write_bytes(jpeg())
    (tmp_path / "1.json").write_text(json.dumps({"caption": ["A dog.", "A brown dog."]}))
    with pytest.raises(Exception, match="has a list of captions: --explode raw_caption"):
        rows(spark, tmp_path)
    assert [r.raw_caption for r in rows(spark, tmp_path, explode="raw_caption")] == ["A brown dog.", "A dog."]
    (tmp_path / "1.json").write_text("[" * 200_000)
    (tmp_path / "1.txt").write_text("An ox.")
    for other in ("a.svg", "b.svg", "LICENSE"):
        (tmp_path / other).touch()
    capfd.readouterr()
    assert [r.raw_caption for r in rows(spark, tmp_path)] == ["An ox."]
    assert "files that are not read: 2 .svg, 1 without a suffix" in capfd.readouterr().err
    with tarfile.open(tmp_path / "packed/0.tar.gz", "w:gz") as packed:
        for name in ("1.jpg", "1.txt"):
            packed.add(tmp_path / name, name)
    assert [r.raw_caption for r in rows(spark, tmp_path / "packed")] == ["An ox."]


def test_float16(spark: SparkSession, tmp_path: Path) -> None:
    path = parquet(tmp_path / "half.parquet", url=[f"{URL}1"], raw_caption=["Ox"], score=pa.array([1.5], pa.float16()))
    if spark.version.startswith("3."):
        with pytest.raises(InputError, match=r"reads no file with float16 columns \(score\): use Spark 4"):
            read(spark, SourceConfig(pairs=str(path)))
        return
    source = read(spark, SourceConfig(pairs=str(path)))
    assert source.left_out == {"score": "halffloat"}
    assert [r.raw_caption for r in source.rows.collect()] == ["Ox"]


def test_columns_that_differ_in_case_only(spark: SparkSession, tmp_path: Path) -> None:
    path = parquet(tmp_path / "case.parquet", url=[f"{URL}1"], raw_caption=["Ox"], URL=["other"])
    with pytest.raises(InputError, match="the columns url, URL, which Spark does not tell apart"):
        rows(spark, path)


def test_lists_of_captions(spark: SparkSession, tmp_path: Path) -> None:
    path = parquet(tmp_path / "list.parquet", url=[f"{URL}1", f"{URL}2"], raw_caption=[["A dog.", "A brown dog."], []])
    with pytest.raises(InputError, match=r"raw_caption is a list of captions .*--explode raw_caption"):
        rows(spark, path)
    captions = [("1", "A brown dog."), ("1", "A dog."), ("2", "")]
    assert [(r.url[-1], r.raw_caption) for r in rows(spark, path, explode="raw_caption")] == captions
    lines = tmp_path / "list.jsonl"
    lines.write_text(json.dumps({"url": f"{URL}1", "raw_caption": ["A dog.", "A brown dog."]}))
    with pytest.raises(InputError, match="--explode raw_caption"):
        rows(spark, lines)
    lines.write_text(lines.read_text() + "\n" + json.dumps({"url": f"{URL}2", "raw_caption": []}))
    assert [(r.url[-1], r.raw_caption) for r in rows(spark, lines, explode="raw_caption")] == captions
    with pytest.raises(InputError, match="is text: only Parquet and Delta hold the bytes of images"):
        rows(spark, lines, explode="raw_caption", columns={"image": "url"})


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_parts_of_columns(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    records = [{"link": f"{URL}1", "caption": {"text": "Ox", "lang": "en"}, "more": [{"raw": "Cow"}, {"raw": "Hen"}]}]
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(InputError, match=r"caption is .*--column raw_caption=.*text"):
        rows(spark, path, columns={"raw_caption": "caption"})
    [row] = rows(spark, path, columns={"raw_caption": "caption.text", "url": "link"})
    assert (row.url, row.raw_caption) == (f"{URL}1", "Ox")
    assert json.loads(row.extra["more"]) == records[0]["more"]
    many = rows(spark, path, columns={"raw_caption": "more.raw", "url": "link"}, explode="raw_caption")
    assert [r.raw_caption for r in many] == ["Cow", "Hen"]
    with pytest.raises(InputError, match=r"has no column 'nothing\.text'"):
        rows(spark, path, columns={"raw_caption": "nothing.text"})


def test_images_of_hugging_face(run: Run, tmp_path: Path, jpeg: Callable[..., bytes]) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    ox, cow = ({"bytes": jpeg(color, (80, 60)), "path": path} for color, path in (("teal", "1.jpg"), ("red", None)))
    path = parquet(tmp_path / "hf.parquet", image=pa.array([ox, cow, None], kind), text=["Ox", "Cow", "Hen"])
    ingest(run, SourceConfig(pairs=str(path), columns={"raw_caption": "text"}))
    pairs = {r.raw_caption: r.url for r in run.lake.read("pairs").collect()}
    images = {r.url: r for r in run.lake.read("images").collect()}
    assert pairs["Ox"] == f"sha256:{images[pairs['Ox']].image_id}"
    assert images[pairs["Cow"]].width == 80
    assert (pairs["Hen"], images[""].error) == ("", "not_an_image")
    assert all(r.extra == {} for r in run.lake.read("pairs").collect())


def test_malformed_rows_are_rejected_until_the_source_is_mended(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text(f'url\traw_caption\n{URL}1\tOx\n{URL}2\t"Cow\n{URL}3\tHen\n{URL}4\tCat\n')
    ingest(run, SourceConfig(pairs=str(path), name="farm"))
    assert sorted(r.raw_caption for r in run.lake.read("pairs").collect()) == ["Cat", "Hen", "Ox"]
    [bad] = run.lake.read("rejects").collect()
    assert (bad.stage, bad.reason) == ("ingest", "malformed_row")
    assert bad.detail == "farm: rows.tsv, line 3: a quote that is never closed"
    [counts] = run.lake.read("runs").collect()
    assert (counts.rows_in, counts.rows_out, counts.rows_rejected) == (4, 3, 1)
    run.run_id += "x"
    path.write_text(path.read_text().replace('"Cow', "Cow"))
    ingest(run, SourceConfig(pairs=str(path), name="farm"))
    assert run.lake.read("pairs").count() == 4
    assert run.lake.read("rejects").count() == 0


def test_broken_text_in_parquet_is_mended(spark: SparkSession, tmp_path: Path) -> None:
    raw = pa.array([b"Ox \xff\xfe in Bath"]).cast(pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 1, raw.buffers())
    [row] = rows(spark, parquet(tmp_path / "a.parquet", url=[f"{URL}1"], raw_caption=broken))
    assert row.raw_caption.startswith("Ox \ufffd")


def test_delta_tables_of_others(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "delta"
    frame = spark.createDataFrame(
        [(f"{URL}1", ["Ox", "Cow"], b"\x00")], "url string, raw_caption array<string>, b binary"
    )
    frame.write.format("delta").save(str(path))
    source = read(spark, SourceConfig(pairs=str(path), explode="raw_caption"))
    assert source.left_out == {"b": "binary"}
    assert sorted(r.raw_caption for r in source.rows.collect()) == ["Cow", "Ox"]
