"""Test takedowns: what is removed, purged and blocked, and how requests are parsed."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import canonical_url
from capsfusion_etl.lake.blocklist import Blocked, blocked_by, domains_of, requests_in, url_hash, value_of
from capsfusion_etl.lake.rejects import surviving
from capsfusion_etl.lake.run import Run
from capsfusion_etl.operations.explain import explain_pair
from capsfusion_etl.operations.takedown import Proof, take_down
from capsfusion_etl.operations.takedown_preview import preview
from capsfusion_etl.pipeline import PipelineConfig, run_pipeline
from capsfusion_etl.queries.embedded_sql import NotHereError
from capsfusion_etl.settings import Settings
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_etl.snapshots.catalog import hold, release
from capsfusion_etl.snapshots.manifest import GateResult
from capsfusion_etl.stages.fetch.stage import fetch
from capsfusion_etl.stages.ingest.config import SourceConfig
from capsfusion_etl.stages.ingest.stage import ingest
from capsfusion_etl.stages.publish import frames
from searching import holding

Command = Callable[..., tuple[int, str, str]]
COLOURS = ("teal", "red", "navy", "olive")


def test_every_spelling_of_a_request(tmp_path: Path) -> None:
    assert value_of("domain", "2001:db8::1") == value_of("domain", "http://[2001:DB8::1]:80/x") == "[2001:db8::1]"
    url = Blocked(urls=frozenset({value_of("url", "http://b\u00fccher.example/4")}))
    assert url.kind_of("http://xn--bcher-kva.example./4") == url.kind_of("http://B\u00fccher.example/4") == "url"
    assert url.kind_of("http://bucher.example/4") is None
    assert Blocked(domains=frozenset({"fass.de"})).kind_of("http://img.fa\u00df.de/x") == "domain"  # stored earlier
    before = hashlib.sha256(canonical_url("http://b\u00fccher.example/4").encode()).hexdigest()  # stored earlier
    assert Blocked(urls=frozenset({before})).kind_of("http://b\u00fccher.example/4") == "url"
    (tmp_path / "list").write_bytes("domain b\u00fccher.example".encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8"):
        requests_in(tmp_path / "list")


@pytest.fixture
def published(run: Run, tmp_path: Path, jpeg: Callable[..., bytes]) -> tuple[Run, Settings]:
    """A lake with a held snapshot of four pairs, whose images come from a folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, colour in enumerate(COLOURS):
        about = {
            "url": f"http://img{i}.secret{i}.example/p.jpg",
            "caption": f"Quokka{i} on Rottnest in 19{i}4",
            "synthetic_caption": "An animal.",
        }
        (folder / f"{i}.jpg").write_bytes(jpeg(colour, (300, 200)))
        (folder / f"{i}.json").write_text(json.dumps(about))
    settings: Settings = {
        "source": {"pairs": str(folder), "name": "photos"},
        "fetch": {"enabled": True, "inline_bytes": 0, "files": str(tmp_path / "lake" / "_images")},
        "captioner": {"name": "column"}, "fuser": {"strategies": ["raw"]},
        "publish": {"strategy": "raw", "name": "july"}, "filters": {"min_contrast": 0.0},
        "dedup": {"near_images": None},
    }  # fmt: skip
    run_pipeline(run, PipelineConfig.of(settings), lambda *_: GateResult(True, 1, (), ""))
    hold(run, "july")
    return run, settings


def test_what_is_taken_down_leaves_every_table_and_file(
    published: tuple[Run, Settings], tmp_path: Path, jpeg: Callable[..., bytes]
) -> None:
    run, settings = published
    lake, root = run.lake, Path(run.lake.root)
    picture = jpeg("red", (300, 200))
    needles = (b"Quokka1", b"secret1", picture)
    assert all(holding(root, needle) for needle in needles)
    pair = lake.read("pairs").where("url LIKE '%secret1%'").collect()[0]
    image_id = lake.read("images").where("url LIKE '%secret1%'").collect()[0]["image_id"]
    assert any("published" in line and "Quokka1" in line for line in explain_pair(lake, pair["pair_id"][:12]))

    expected = preview(lake, [("image_id", image_id)])
    assert lake.is_empty("takedowns")
    proof = take_down(run, [("image_id", image_id)])
    assert expected == without_files(proof)
    assert proof.pairs == 1
    assert proof.snapshots == ["july"]
    assert {name: found["rows"] for name, found in proof.tables.items() if found["rows"]} == {
        "training_pairs": 1, "fused_captions": 1, "synthetic_captions": 1, "images": 1, "pairs": 1
    }  # fmt: skip
    assert proof.tables["pairs"]["files_rewritten"] == 1
    for table in ("pairs", "images", "synthetic_captions", "fused_captions", "training_pairs"):
        assert lake.read(table).count() == 3
    assert holding(root, needles[0])  # still in old versions of the tables and in the hold
    with pytest.raises(InputError, match="july holds pairs that were taken down since: publish a new one"):
        open_snapshot(f"{root}@july", strategy="raw")
    assert lake.read("snapshots").collect()[0]["state"] == "taken_down"
    [kept] = lake.read("takedowns").where("kind = 'image_id'").collect()
    assert json.loads(kept["proof"])["pairs"] == 1
    assert kept["applied_at"] is not None

    run.run_id = "purge"
    again = take_down(run, [("image_id", image_id)], purge=True)
    assert again == Proof(0, again.tables, again.snapshots, again.training_runs, True)
    assert {needle: holding(root, needle) for needle in needles} == {needle: [] for needle in needles}
    assert json.loads(lake.read("takedowns").where("kind = 'image_id'").collect()[0]["proof"])["pairs"] == 1

    # The image is rejected when it is ingested again, under its own URL and under another one.
    run.run_id = "again"
    other = {"url": "http://mirror.example/q.jpg", "caption": "A copy of it in 1934", "synthetic_caption": "An animal."}
    (tmp_path / "photos" / "9.jpg").write_bytes(picture)
    (tmp_path / "photos" / "9.json").write_text(json.dumps(other))
    plan = PipelineConfig.of(settings)
    ingest(run, plan.source, plan.fetch)
    fetch(run, plan.fetch)
    reasons = {row["pair_id"]: (row["stage"], row["reason"]) for row in lake.read("rejects").collect()}
    assert reasons.pop(pair["pair_id"]) == ("ingest", "taken_down")
    assert list(reasons.values()) == [("fetch", "taken_down")]
    assert surviving(lake, before="filter").count() == 3
    looked_at = frames(run, plan.params_hash, plan.publish)["rejects"]  # the gate gets only rejects of stored pairs
    assert looked_at.join(lake.read("pairs"), "pair_id", "left_anti").isEmpty()
    assert not holding(root, picture)
    [line] = explain_pair(lake, "http://img1.secret1.example/p.jpg")
    assert "taken down, asked for at" in line


def by_spark(*_: object) -> None:
    raise NotHereError("a test")


def without_files(proof: Proof) -> Proof:
    """Return a proof as a preview gives it."""
    return replace(proof, tables={name: {"rows": found["rows"]} for name, found in proof.tables.items()})


def test_domains_addresses_and_files(
    published: tuple[Run, Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = published
    path = tmp_path / "requests.txt"
    path.write_text("# asked by letter\nhttp://IMG0.secret0.example:80/p.jpg#top\ndomain secret2.example\n\n")
    assert requests_in(path) == [("url", "http://IMG0.secret0.example:80/p.jpg#top"), ("domain", "secret2.example")]
    by_duckdb = preview(run.lake, requests_in(path))
    with monkeypatch.context() as patch:
        patch.setattr("capsfusion_etl.queries.connected", by_spark)
        assert preview(run.lake, requests_in(path)) == by_duckdb
    proof = take_down(run, requests_in(path))
    assert by_duckdb == without_files(proof)
    assert proof.pairs == 2
    left = {row["url"] for row in run.lake.read("pairs").collect()}
    assert left == {"http://img1.secret1.example/p.jpg", "http://img3.secret3.example/p.jpg"}
    url = url_hash("http://img0.secret0.example/p.jpg")
    assert blocked_by(run.lake) == Blocked(urls=frozenset({url}), domains=frozenset({"secret2.example"}))
    again = preview(run.lake, [("domain", "secret3.example")])  # the snapshot also holds pairs of earlier takedowns
    assert (again.pairs, again.snapshots) == (1, ["july"])
    assert preview(run.lake, [("domain", "o'brien.example")]).unmatched == ["domain o'brien.example"]
    assert preview(run.lake, [("pair_id", "x\\")]).snapshots == ["july"]
    assert proof.unmatched == take_down(run, requests_in(path)).unmatched == []
    path.write_text("host x.example\n")
    with pytest.raises(InputError, match="line 1: wants url, domain, image_id, pair_id and a value"):
        requests_in(path)
    with pytest.raises(InputError, match="say what to take down"):
        take_down(run, [])
    with pytest.raises(InputError, match="no pair 00000000"):
        list(explain_pair(run.lake, "00000000"))


def test_a_redirect_is_followed(published: tuple[Run, Settings]) -> None:
    """The hosts that served the image, or redirected on the way, are asked for; the pair names another."""
    run, _ = published
    images = run.lake.ref("images")
    run.lake.spark.sql(f"UPDATE {images} SET final_url = 'https://CDN.host.example:8443/p.jpg' WHERE url LIKE '%img2%'")
    way = "array('http://img3.secret3.example/p.jpg', 'http://short.example/x')"
    run.lake.spark.sql(f"UPDATE {images} SET redirects = {way} WHERE url LIKE '%img3%'")
    expected = preview(run.lake, [("domain", "host.example"), ("domain", "short.example")])
    proof = take_down(run, [("domain", "host.example"), ("domain", "short.example")])
    assert expected == without_files(proof)
    assert (proof.pairs, proof.tables["images"]["rows"], proof.unmatched) == (2, 2, [])
    assert not [row for row in run.lake.read("pairs").collect() if "img2" in row["url"] or "img3" in row["url"]]
    ingest(run, SourceConfig(pairs=str(published[1]["source"]["pairs"]), name="photos"))
    assert run.lake.read("pairs").count() == 2


def test_a_request_that_matches_nothing(published: tuple[Run, Settings], capsfusion: Command) -> None:
    run, _ = published
    release(run, "july")
    code, out, err = capsfusion("takedown", "--dry-run", "--lake", run.lake.root, "--domain", "img1.secret1.exampel")
    assert (code, json.loads(out)["pairs"]) == (2, 0)
    assert "domain img1.secret1.exampel; similar hosts in the lake: img1.secret1.example" in err
    assert "blocked" not in err
    code, out, err = capsfusion(
        "takedown", "--lake", run.lake.root, "--domain", "img1.secret1.exampel", "--domain", "img3.secret3.example"
    )
    assert (code, json.loads(out)["pairs"]) == (2, 1)
    assert (
        "nothing in the lake matches domain img1.secret1.exampel; similar hosts in the lake: img1.secret1.example"
        in err
    )
    assert "img3" not in err
    for empty in ("", " ", "http://"):
        with pytest.raises(InputError, match="is no domain"):
            take_down(run, [("domain", empty)])
    hold(run, "july")
    assert run.lake.read("snapshots").collect()[0]["state"] == "taken_down"


def test_domains() -> None:
    assert value_of("domain", "*.Ex.example.") == "ex.example"
    assert domains_of("https://a.B.example/x") == ["a.b.example", "b.example", "example"]
    assert domains_of("http://[broken") == [""]
    assert value_of("domain", "HTTPS://Ex.example/path") == "ex.example"
    assert value_of("domain", "bücher.example") == "xn--bcher-kva.example"
    assert value_of("url", "HTTP://a.example:80/x#y") == value_of("url", "http://a.example/x")
