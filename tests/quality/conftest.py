"""A lake with fused captions, for the tests of what analysts use."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HOSTILE = "</script><script>document.title='owned'</script> Lamp of Ghent"


@pytest.fixture(scope="module")
def made(
    captioned_lake: Callable[..., Path], start: Any, tmp_path_factory: pytest.TempPathFactory, spark: "SparkSession"
) -> tuple[Path, Any]:
    """A lake with fused captions, some of them rejected, and the plan that produced it."""
    from capsfusion_etl.lake.create import open_lake
    from capsfusion_etl.lake.run import Run
    from capsfusion_etl.lake.saved_settings import recall, remember
    from capsfusion_etl.pipeline import PipelineConfig
    from capsfusion_etl.stages.fuse.stage import fuse

    base_url, _ = start(faults={"cut": 0.2}, seed=1)
    raws = [f"Bridge number {i} in Lisbon, {1900 + i}" for i in range(40)] + [HOSTILE] * 2
    raws[5] = "IMG_0005.jpg"  # a filter rejects it
    pairs = tmp_path_factory.mktemp("analyst") / "pairs.jsonl"
    rows = (
        {"url": f"http://a{i % 3}.example/{i}.jpg", "raw_caption": r, "synthetic_caption": "A bridge."}
        for i, r in enumerate(raws)
    )
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lake = captioned_lake(pairs, language=None)
    fuser = {"name": "openai", "model": "m", "base_url": base_url, "retries": 0, "canaries": 0.0}
    settings = recall(str(lake)) | {"fuser": fuser | {"usd_per_million_in": 5.0}}
    remember(str(lake), settings)
    plan, run = PipelineConfig.of(settings), Run(open_lake(spark, str(lake)))
    fuse(run, plan.fuser, plan.budget, captioner_params_hash=plan.captioner_params_hash)
    return lake, plan


@pytest.fixture
def lake(made: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of that lake, for one test."""
    return Path(shutil.copytree(made[0], tmp_path / "lake"))
