"""Bring the pairs through the product's own stages: ingest, filter, dedup, caption, fuse, judge, gate and publish."""

import sys
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from random import Random

import grammars
import pyarrow as pa
from capsfusion_etl.storage import write_parquet
from capsfusion_trainer.compare.run import newest
from capsfusion_trainer.data.snapshot import Split
from kept import take_fused
from rows import publish
from sizes import Study
from world import Scene

SETTINGS = {
    "source.name": "claim", "fetch.enabled": "true", "captioner.name": "column", "fuser.name": "embedded",
    # Of the web's filters and duplicates, none is needed here: names that no language has look foreign, and pictures
    # of the same individual look alike.
    "filters.language": "null", "filters.min_contrast": "0", "dedup.near_images": "null", "dedup.near_captions": "null",
    # A page may say the same of many pictures of the same individual.
    "filters.max_images_per_caption": "null",
    "publish.held_out": "0.0",
}  # fmt: skip


def write_pairs(scenes: Sequence[Scene], pictures: Sequence[Path], captions: Sequence[str], target: Path) -> None:
    """Write the pairs as a source: address, alt-text, the captioner's caption and the picture."""
    if target.is_file():
        return
    chance = Random("alt-texts")
    rows = [
        {"url": f"http://claim.example/{path.name}", "raw_caption": grammars.alt_text(scene, chance),
         "synthetic_caption": caption, "image": path.read_bytes()}
        for scene, path, caption in zip(scenes, pictures, captions, strict=True)
    ]  # fmt: skip
    write_parquet(target, pa.Table.from_pylist(rows))


def publish_strategies(study: Study, lake: Path, pairs: Path, kept: Path) -> None:
    """Run every stage and publish a snapshot of each strategy; what was done before, or is `kept`, is not done again.

    Raises:
        SystemExit: A stage failed, or the gate refused a strategy; the last line on stderr says why.
    """
    chosen = SETTINGS | {"fuser.strategies": f"[{', '.join(study.strategies)}]"}
    sets = [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]
    _command("ingest", "--lake", lake, "--pairs", pairs, "--column", "image=image", *sets)
    for stage in ("filter", "dedup", "caption"):
        _command(stage, "--lake", lake, *sets)
    take_fused(lake, study.strategies, kept)
    _command("fuse", "--lake", lake, *sets)
    for strategy in study.strategies:
        _command("publish", strategy, "--lake", lake, *sets, "--set", f"publish.strategy={strategy}")


def _command(*words: object) -> None:
    from capsfusion_etl.cli.main import main

    sys.argv = ["capsfusion", *map(str, words)]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise


def publish_oracle(lake: Path, scenes: Sequence[Scene], pictures: Sequence[Path]) -> None:
    """Publish the strategy `oracle`: for the same pairs, captions that tell all there is to know."""
    known = {sha256(path.read_bytes()).digest(): scene for scene, path in zip(scenes, pictures, strict=True)}

    def rows() -> Iterator[tuple[str, bytes, str]]:
        for sample in Split(newest(str(lake), "raw"), "train"):
            image = sample.image or b""
            yield sample.pair_id, image, grammars.oracle(known[sha256(image).digest()])

    publish(lake, "oracle", rows())
