"""A published lake with pictures, to export."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from capsfusion_etl.dev_server import Behaviour
from capsfusion_etl.lake.create import open_lake
from capsfusion_etl.settings import Settings
from exported import COLOURS, LONG, Published, photo
from PIL import Image, ImageColor
from pyspark.sql import SparkSession


@pytest.fixture(scope="module")
def published(
    spark: SparkSession,
    empty_lake: Path,
    tmp_path_factory: pytest.TempPathFactory,
    large_jpeg: Callable[[str], bytes],
    start: Callable[..., tuple[str, Behaviour]],
) -> Published:
    """A lake with the snapshot `first` of twelve fused captions; their pictures are in files, not in the table."""
    home = tmp_path_factory.mktemp("exported")
    lake = open_lake(spark, str(shutil.copytree(empty_lake, home / "lake")))
    photos = home / "photos"
    photos.mkdir()
    for number, colour in enumerate(COLOURS):
        caption = f"Quokka {number} on Rottnest Island in 19{number:02d}" if number else LONG
        photo(photos, number, large_jpeg(colour), caption)
    fuser = {"name": "openai", "model": "m", "base_url": start()[0], "fallback": "raw"}
    settings: Settings = {
        "source": {"pairs": str(photos), "name": "photos"},
        "fetch": {"enabled": True, "inline_bytes": 0, "files": str(home / "lake" / "_images")},
        "captioner": {"name": "column"}, "fuser": fuser,
        "publish": {"name": "first", "held_out": 0.2, "row_group": 2},
        "filters": {"min_contrast": 0.0, "max_chars": 9_000, "max_repetition": 1.0},
        "dedup": {"near_images": None, "near_captions": None},
    }  # fmt: skip
    made = Published(lake, photos, settings)
    made.publish("first")
    return made


@pytest.fixture(scope="session")
def large_jpeg() -> Callable[[str], bytes]:
    """Function that makes a picture of a colour with noise, of some 300 kB."""

    def make(colour: str) -> bytes:
        noise = np.random.default_rng(0).integers(-60, 60, (400, 600, 3))
        pixels = np.clip(np.array(ImageColor.getrgb(colour)) + noise, 0, 255).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=95)
        return out.getvalue()

    return make
