"""Test near-duplicate detection: keys, thresholds, and clusters that grow from run to run."""

import json
from pathlib import Path

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.lake.run import Run
from capsfusion_etl.stages.dedup import clusters
from capsfusion_etl.stages.dedup.clusters import components
from capsfusion_etl.stages.dedup.sketches import DedupConfig, caption_keys, image_keys, jaccard, shingles
from capsfusion_etl.stages.dedup.stage import dedup
from capsfusion_etl.stages.ingest.config import SourceConfig
from capsfusion_etl.stages.ingest.stage import ingest
from capsfusion_etl.tables import IMAGES
from hypothesis import given
from hypothesis import strategies as st

BITS = st.integers(0, 63)


@given(st.integers(0, 2**64 - 1), st.integers(0, 8), st.data())
def test_hashes_within_the_threshold_share_a_key(value: int, bits: int, data: st.DataObject) -> None:
    flipped = value
    for bit in data.draw(st.sets(BITS, min_size=bits, max_size=bits)):
        flipped ^= 1 << bit
    one, other = image_keys([f"{value:016x}", f"{flipped:016x}"], bits)
    assert set(one.tolist()) & set(other.tolist())
    assert len(one) == (bits + 2) * (bits + 1) // 2


def test_near_captions_share_a_key_and_others_do_not() -> None:
    texts = [
        "Old Harbour Bridge in Lisbon at night, 1998 postcard by Anna Silva",
        "old harbour bridge in Lisbon at night (1998 postcard by Anna Silva)",
        "Red dahlia at the Ghent flower market, seen on a rainy day in May",
        "",
    ]
    keys = [set(row) for row in caption_keys(texts).tolist()]
    assert jaccard(texts[0], texts[1]) == 1.0
    assert keys[0] == keys[1]
    assert not keys[0] & keys[2]
    assert len(keys[3]) == 25
    assert shingles("A b!") == ["a b"]
    assert jaccard("Castle in Wales", "Castle in Walls") == pytest.approx(9 / 13)


@pytest.mark.parametrize("wrong", [{"near_images": 9}, {"near_captions": 0.2}])
def test_thresholds_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"dedup\.near_"):
        DedupConfig(**wrong)  # type: ignore[arg-type]


def add(run: Run, folder: Path, name: str, rows: list[tuple[str, str]]) -> None:
    """Ingest pairs in a separate run; `rows` are raw captions with perceptual hashes."""
    run.run_id = name
    path = folder / f"{name}.jsonl"
    pairs = [{"url": f"http://a.example/{name}/{i}", "raw_caption": text} for i, (text, _) in enumerate(rows)]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    ingest(run, SourceConfig(pairs=str(path)))
    images = [
        {"url": pair["url"], "image_id": f"{name}{i}", "phash": phash}
        for i, (pair, (_, phash)) in enumerate(zip(pairs, rows, strict=True))
    ]
    run.lake.append("images", run.lake.spark.createDataFrame(images, IMAGES.schema()), app_id=name, version=0)


def gone(run: Run) -> dict[str, tuple[str, str]]:
    """Return caption of each rejected pair -> reason, caption of the pair that was kept."""
    words = {row["pair_id"]: row["raw_caption"] for row in run.lake.read("pairs").collect()}
    return {
        words[row["pair_id"]]: (row["reason"], words[row["detail"].removeprefix("kept ")])
        for row in run.lake.read("rejects").collect()
    }


BASE = 0x0F0F_1234_5678_9ABC


@given(edges=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), max_size=12))
def test_clusters_are_the_connected_components(edges: list[tuple[str, str]]) -> None:
    found = {node: node for edge in edges for node in edge}
    for _ in edges:  # propagates the smallest end
        for a, b in edges:
            found[a] = found[b] = min(found[a], found[b])
    assert components(edges) == found


@pytest.mark.parametrize("few", [clusters._FEW_EDGES, 0])
def test_what_is_new_joins_the_clusters_that_are_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(clusters, "_FEW_EDGES", few)  # 0: in Spark, as for many
    config = DedupConfig(near_images=3, near_captions=0.7)
    add(run, tmp_path, "first", [
        ("Short", f"{BASE:016x}"),
        ("A longer caption of it", f"{BASE ^ 0b111:016x}"),  # three bits away: same image; the longer caption is kept
        ("Something else", f"{BASE ^ (0xF << 40):016x}"),  # four bits away: another image
        ("Old Harbour Bridge in Lisbon at night, postcard of 1998", "aaaaaaaaaaaaaaaa"),
        ("Old Harbour Bridge in Lisbon at night, postcard of 1997", "5555555555555555"),
    ])  # fmt: skip
    dedup(run, config)
    first = gone(run)
    assert first.pop("Short") == ("near_duplicate_image", "A longer caption of it")
    [(words, (reason, _))] = first.items()
    assert (words[:30], reason) == ("Old Harbour Bridge in Lisbon a", "near_duplicate_caption")
    sketches = run.lake.read("sketches").count()
    assert sketches == 10

    add(run, tmp_path, "second", [
        # A chain: five bits from the kept pair, two from the rejected one. The older pair is kept.
        ("The longest caption of them all, but it came later", f"{BASE ^ 0b11000000:016x}"),
        ("Quite another one", "0000ffff0000ffff"),
    ])  # fmt: skip
    dedup(run, config)
    second = gone(run)
    assert second["The longest caption of them all, but it came later"] == (
        "near_duplicate_image",
        "A longer caption of it",
    )
    assert {"Quite another one", "Something else"}.isdisjoint(second)
    assert run.lake.read("sketches").count() == sketches + 4
    assert run.lake.read("near_clusters").where("kind = 'image/3'").select("cluster").distinct().count() == 1
    versions = [run.lake.version(table) for table in ("rejects", "near_edges", "near_clusters")]
    dedup(run, config)
    assert [run.lake.version(table) for table in ("rejects", "near_edges", "near_clusters")] == versions

    dedup(run, DedupConfig(near_images=None))  # a changed threshold brings pairs back
    assert gone(run) == {}


def test_a_killed_runs_sketches_are_linked_by_the_next(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(run, tmp_path, "killed", [("One", f"{BASE:016x}"), ("Two of them", f"{BASE ^ 1:016x}")])

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(clusters, "_link", die)
    with pytest.raises(KeyboardInterrupt):
        dedup(run, DedupConfig())
    monkeypatch.undo()
    assert run.lake.read("sketches").count() == 2
    run.run_id = "next"
    dedup(run, DedupConfig())
    assert gone(run) == {"One": ("near_duplicate_image", "Two of them")}


def test_a_crowd_under_one_key_is_one_cluster(run: Run, tmp_path: Path) -> None:
    add(run, tmp_path, "crowd", [(f"Icon number {i}", f"{BASE:016x}") for i in range(40)])
    dedup(run, DedupConfig())
    assert len(gone(run)) == 39
    assert run.lake.read("near_edges").count() == 39  # not one for every two pairs
