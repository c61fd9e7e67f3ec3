"""Test the layouts that ingest reads, and how a newer version of a source updates a lake."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.lake.rejects import surviving
from capsfusion_etl.lake.run import Run
from capsfusion_etl.queries import queries
from capsfusion_etl.stages.ingest.config import SourceConfig
from capsfusion_etl.stages.ingest.sources import read
from capsfusion_etl.stages.ingest.stage import ingest
from capsfusion_quality.report_data import funnel
from PIL import Image
from pyspark.sql import SparkSession

Jpeg = Callable[..., bytes]


def found(spark: SparkSession, path: Path, **config: str) -> dict[str, tuple[str, bytes | None]]:
    """Return URL -> raw caption and image bytes."""
    rows = read(spark, SourceConfig(pairs=str(path), **config)).rows  # type: ignore[arg-type]
    with_bytes = "bytes" in rows.columns
    return {
        r["url"]: (r["raw_caption"], bytes(r["bytes"]) if with_bytes and r["bytes"] is not None else None)
        for r in rows.collect()
    }


def test_conceptual_captions_have_no_head(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "cc3m.tsv").write_text('a "very" typical bus\thttp://a.example/1.jpg\n')
    (tmp_path / "cc12m.tsv").write_text('http://a.example/1.jpg\ta "very" typical bus\n')
    wanted = {"http://a.example/1.jpg": ('a "very" typical bus', None)}
    assert found(spark, tmp_path / "cc3m.tsv", layout="cc3m") == wanted
    assert found(spark, tmp_path / "cc12m.tsv", layout="cc12m") == wanted


def test_coyo_and_img2datasets_tables(spark: SparkSession, tmp_path: Path, jpeg: Jpeg) -> None:
    coyo = [(1, "http://a.example/1.jpg", "Ox in Bath", 640)]
    spark.createDataFrame(coyo, "id long, url string, text string, width int").write.parquet(str(tmp_path / "coyo"))
    assert found(spark, tmp_path / "coyo") == {"http://a.example/1.jpg": ("Ox in Bath", None)}
    rows = [
        ("http://a.example/1.jpg", "Ox", "0001", "success", jpeg()),
        ("http://a.example/2.jpg", "Cow", "0002", "failed_to_download", None),
    ]
    frame = spark.createDataFrame(rows, "url string, caption string, key string, status string, jpg binary").coalesce(1)
    frame.write.parquet(str(tmp_path / "i2d"))
    (tmp_path / "i2d" / "00000_stats.json").write_text("{}")  # img2dataset leaves such files beside its tables
    assert found(spark, tmp_path / "i2d") == {
        "http://a.example/1.jpg": ("Ox", jpeg()), "http://a.example/2.jpg": ("Cow", b"")
    }  # fmt: skip


def test_a_named_layout_says_what_is_missing(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("link,alt\n1,2\n")
    with pytest.raises(InputError, match="is not of the layout coyo: it has no url, text; it has link, alt"):
        found(spark, tmp_path / "rows.csv", layout="coyo")
    with pytest.raises(InputError, match="there is no layout 'leon'; there are capsfusion, laion-coco"):
        found(spark, tmp_path / "rows.csv", layout="leon")
    with pytest.raises(InputError, match="has no tars"):
        found(spark, tmp_path, layout="webdataset")


def tar(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w") as out:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            out.addfile(info)
    return path


def test_tars_and_names_that_climb_out(spark: SparkSession, tmp_path: Path, jpeg: Jpeg) -> None:
    folder = tmp_path / "inner" / "shards"
    folder.mkdir(parents=True)
    about = json.dumps({"url": "http://a.example/1.jpg", "caption": "Ox in Bath", "width": 64, "exif": None}).encode()
    path = tar(
        folder / "00000.tar",
        {
            "0001.jpg": jpeg(), "0001.json": about, "0001.txt": b"not this one",
            "../../evil.jpg": jpeg("red"), "../../evil.txt": b"Out of the tar",
            "0003.png": b"x" * 100, "0003.json": b"{broken", "0003.txt": "Zürich".encode(),
        },
        {"0004.jpg": "/etc/passwd"},
    )  # fmt: skip
    assert found(spark, folder) == {
        "http://a.example/1.jpg": ("Ox in Bath", jpeg()),
        f"{path}?key=../../evil": ("Out of the tar", jpeg("red")),
        f"{path}?key=0003": ("Zürich", b"x" * 100),
    }
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["00000.tar", "inner", "shards"]
    [row] = read(spark, SourceConfig(pairs=str(folder))).rows.where("raw_caption = 'Ox in Bath'").collect()
    assert row["extra"] == {"width": "64"}
    small = read(spark, SourceConfig(pairs=str(path)), max_bytes=99).rows.where("raw_caption = 'Zürich'").collect()
    assert small[0]["bytes"] is None
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(Exception, match=r"00000\.tar: is it damaged"):
        found(spark, folder)


def test_names_with_several_dots(spark: SparkSession, tmp_path: Path, jpeg: Jpeg) -> None:
    """`IMG_1.2` is one key; `0001.seg.png` adds to the sample `0001`; macOS adds `._` files, which are no images."""
    path = tar(
        tmp_path / "dots.tar",
        {
            "._IMG_1.2.jpg": b"macOS", "IMG_1.2.jpg": jpeg(), "IMG_1.2.txt": b"Ox in Bath",
            "IMG_1.3.jpg": jpeg("red"), "IMG_1.3.txt": b"Cow in Kent",
            "a.b/0001.jpg": jpeg("blue"), "a.b/0001.seg.png": b"mask", "a.b/0001.txt": b"Hen in Hove", "README": b"x",
            "a.b/0002.txt": b"Without an image", "a.b/0003.jfif": jpeg("teal"), "a.b/0003.txt": b"Cat in Cork",
        },
    )  # fmt: skip
    assert found(spark, path) == {
        f"{path}?key=IMG_1.2": ("Ox in Bath", jpeg()),
        f"{path}?key=IMG_1.3": ("Cow in Kent", jpeg("red")),
        f"{path}?key=a.b/0001": ("Hen in Hove", jpeg("blue")),
        f"{path}?key=a.b/0002": ("Without an image", b""),
        f"{path}?key=a.b/0003": ("Cat in Cork", jpeg("teal")),
    }


def test_half_of_a_surrogate_pair(spark: SparkSession, tmp_path: Path, jpeg: Jpeg) -> None:
    about = rb'{"url": "http://a.example/1.jpg", "caption": "Ox \ud83d in \ud83d\ude00", "alt\udc00": "\ud83d"}'
    path = tar(tmp_path / "half.tar", {"0001.jpg": jpeg(), "0001.json": about})
    [row] = read(spark, SourceConfig(pairs=str(path))).rows.collect()
    assert (row["raw_caption"], row["extra"]) == ("Ox \ufffd in \U0001f600", {"alt\ufffd": "\ufffd"})


def test_why_there_is_no_image(run: Run, tmp_path: Path, jpeg: Jpeg) -> None:
    path = tar(tmp_path / "a.tar", {"1.txt": b"Text only", "2.heic": b"ftypheic", "2.txt": b"Heic", "3.jpg": b""})
    ingest(run, SourceConfig(pairs=str(path)))
    images = {row["url"].rpartition("=")[2]: (row["error"], row["detail"]) for row in run.lake.read("images").collect()}
    assert images == {
        "1": ("not_an_image", "no bytes"),
        "2": ("not_an_image", "unknown format (8 bytes)"),
        "3": ("not_an_image", "no bytes"),
    }


def test_a_folder_of_pictures_with_texts(run: Run, tmp_path: Path, jpeg: Jpeg) -> None:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    (folder / "ox.jpg").write_bytes(jpeg("teal", (80, 60)))
    (folder / "ox.txt").write_text("Ox in Bath\n")
    (folder / "deep" / "bad.JPG").write_bytes(b"no picture")
    (folder / "deep" / "bad.caption").write_text("Cow in Kent")
    (folder / "mute.png").write_bytes(jpeg())
    (folder / ".hidden.jpg").write_bytes(jpeg())
    for _ in range(2):
        ingest(run, SourceConfig(pairs=str(folder)))
        run.run_id += "x"
    pairs = {row["raw_caption"]: row["url"] for row in run.lake.read("pairs").collect()}
    assert pairs == {
        "Ox in Bath": f"file://{folder}/ox.jpg", "Cow in Kent": f"file://{folder}/deep/bad.JPG", "": f"file://{folder}/mute.png"
    }  # fmt: skip
    images = {row["url"]: row for row in run.lake.read("images").collect()}
    assert len(images) == 3
    ox = images[pairs["Ox in Bath"]]
    assert (ox["width"], ox["height"], ox["format"], ox["error"]) == (80, 60, "jpeg", None)
    with Image.open(io.BytesIO(ox["bytes"])) as kept:
        assert kept.size == (80, 60)
    assert images[pairs["Cow in Kent"]]["error"] == "not_an_image"


def source(path: Path, rows: dict[str, str]) -> SourceConfig:
    """Write pairs from name -> synthetic caption; the name is the raw caption, too."""
    lines = (
        {"url": f"http://a.example/{name}", "raw_caption": name, "synthetic_caption": text}
        for name, text in rows.items()
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return SourceConfig(pairs=str(path), name="july")


def test_a_newer_version_adds_updates_and_marks_as_gone(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from capsfusion_etl.budget.budget import BudgetConfig
    from capsfusion_etl.engines import CaptionerConfig
    from capsfusion_etl.stages.caption.stage import caption

    ingest(run, source(tmp_path / "1.jsonl", {"a": "A.", "b": "B.", "c": "C."}))
    ingest(run, SourceConfig(pairs=str(tmp_path / "1.jsonl"), name="another", limit=1))
    caption(run, CaptionerConfig(name="column"), BudgetConfig())
    since = {r["raw_caption"]: r["ingested_at"] for r in run.lake.read("pairs").collect()}
    capsys.readouterr()
    run.run_id = "second"
    ingest(run, source(tmp_path / "2.jsonl", {"b": "B.", "c": "Another C.", "d": "D."}))
    assert "3 in, 1 new" in (told := capsys.readouterr().err)
    assert "1 updated, 1 gone" in told
    pairs = {r["raw_caption"]: r for r in run.lake.read("pairs").collect()}
    assert sorted(pairs) == ["a", "b", "c", "d"]
    assert pairs["c"]["extra"] == {"synthetic_caption": "Another C."}
    assert pairs["c"]["ingested_at"] == since["c"]
    [gone] = run.lake.read("rejects").collect()
    assert (gone["pair_id"], gone["reason"]) == (pairs["a"]["pair_id"], "gone")
    assert {r["raw_caption"] for r in surviving(run.lake, before="fetch").collect()} == {"b", "c", "d"}
    with queries(run.lake, "pairs", "rejects") as ask:
        steps = [(step["stage"], step["gone"], step["left"]) for step in funnel(ask)]
    assert steps[:2] == [("ingest", 1, 3), ("fetch", 0, 3)]
    run.run_id = "third"
    caption(run, CaptionerConfig(name="column"), BudgetConfig())  # the updated caption is copied again
    captions = {r["pair_id"]: r["caption"] for r in run.lake.read("synthetic_captions").collect()}
    assert captions[pairs["c"]["pair_id"]] == "Another C."
    run.run_id = "back"
    ingest(run, source(tmp_path / "3.jsonl", {"a": "A.", "b": "B.", "c": "Another C.", "d": "D."}))
    assert run.lake.read("rejects").count() == 0
    assert surviving(run.lake, before="fetch").count() == 4
