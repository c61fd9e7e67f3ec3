"""Count the SQL executions of small jobs: on small data each costs a tenth of a second, on an object store a second."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from capsfusion_etl.lake.run import StageRecord

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Cli = Callable[..., tuple[int, str, str]]
EACH = 12  # most executions of a stage
SETTINGS = ("--captioner", "column", "--set", "fuser.strategies=[synthetic]", "--set", "publish.strategy=synthetic")


class Counter:
    """Counts SQL executions, in all and by stage, in Spark's own list of them."""

    def __init__(self, spark: "SparkSession") -> None:
        self._bus = spark.sparkContext._jsc.sc().listenerBus()  # type: ignore[union-attr]
        self._store = spark._jsparkSession.sharedState().statusStore()  # type: ignore[union-attr]
        self._before = self._last()
        self.stages: dict[str, int] = {}

    def _last(self) -> int:
        self._bus.waitUntilEmpty()
        executions = self._store.executionsList()
        return -1 if executions.isEmpty() else int(executions.last().executionId())  # numbered from 0

    def so_far(self) -> int:
        """Return the number of executions since this counter was made."""
        return self._last() - self._before

    def watch(self, stage: StageRecord) -> None:
        """Note the executions of a stage (a watcher of a run)."""
        before = self.stages.get(stage.stage, 0)
        self.stages[stage.stage] = self.so_far() - before if stage.finished_at is not None else self.so_far()


@pytest.fixture
def counted(spark: "SparkSession", monkeypatch: pytest.MonkeyPatch) -> "Callable[[], Counter]":
    """Function that returns a counter which watches the next run of a command."""

    def start() -> Counter:
        counter = Counter(spark)
        monkeypatch.setattr("capsfusion_etl.lake.watchers.watchers", lambda *_: [counter.watch])
        return counter

    return start


def test_a_small_run_asks_spark_a_few_times_and_an_unchanged_one_never(
    capsfusion: Cli, counted: "Callable[[], Counter]", bridges: Callable[[int], Path], tmp_path: Path
) -> None:
    lake, pairs = tmp_path / "lake", bridges(20)
    counter = counted()
    status, _, err = capsfusion("run", "--lake", lake, "--pairs", pairs, *SETTINGS)
    assert status == 0, err
    assert counter.stages.keys() == {"ingest", "filter", "dedup", "caption", "fuse", "validate", "publish"}
    assert max(counter.stages.values()) <= EACH, counter.stages
    assert counter.so_far() <= 60, counter.stages

    counter = counted()
    status, _, err = capsfusion("run", "--lake", lake)
    assert status == 0, err
    assert (counter.so_far(), counter.stages) == (0, {})

    with pairs.open("a") as file:
        file.write('{"url": "http://b.example/", "raw_caption": "Ox in Bath", "synthetic_caption": "An ox."}\n')
    counter = counted()
    status, _, err = capsfusion("run", "--lake", lake)
    assert status == 0, err
    assert "ingest    21 in, 1 new" in err
    assert max(counter.stages.values()) <= EACH, counter.stages
    assert counter.so_far() <= 70, counter.stages
