"""Test caps, journals and resuming against a real server and real Spark tasks."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from capsfusion_etl.budget import journal
from capsfusion_etl.budget.metered import Allowance, MeteredEngine
from capsfusion_etl.dev_server import Behaviour
from capsfusion_etl.engines import Answer, FuserConfig, Question
from capsfusion_etl.engines.openai import OpenAIFuser
from capsfusion_etl.errors import InputError
from capsfusion_etl.stages.fuse.attempts import Settled, settle

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Start = Callable[..., tuple[str, Behaviour]]
Cli = Callable[..., tuple[int, str, str]]
MakeLake = Callable[[Path], Path]


def questions(count: int) -> list[Question]:
    return [Question(f"{i:064x}", f"Bridge {i} in Lisbon", "A bridge.") for i in range(count)]


def openai(base_url: str, **changes: Any) -> FuserConfig:
    return FuserConfig(
        name="openai",
        model="m",
        base_url=base_url,
        retries=0,
        usd_per_million_in=1e3,
        usd_per_million_out=2e3,
        **changes,
    )


def test_an_allowance_is_never_overdrawn(start: Start, tmp_path: Path) -> None:
    base_url, behaviour = start(random_usage=True)
    config = openai(base_url, max_new_tokens=40)
    fuser = OpenAIFuser(config)
    metered = MeteredEngine(fuser, Allowance(str(tmp_path / "slice"), usd=20.0))
    settled = list(settle(metered, questions(200), config))
    assert 10 < len(settled) < 200
    assert sum(s.answer.cost_usd for s in settled) <= 20.0
    assert behaviour.asked["answered"] == len(settled)


def test_answers_of_a_killed_task_are_not_paid_again(start: Start, tmp_path: Path) -> None:
    base_url, behaviour = start()
    config = openai(base_url)

    def killed() -> Iterator[Question]:
        yield from questions(12)
        raise KeyboardInterrupt

    allowance = Allowance(str(tmp_path / "slice"))
    with pytest.raises(KeyboardInterrupt):
        list(settle(MeteredEngine(OpenAIFuser(openai(base_url, concurrency=4)), allowance), killed(), config))
    paid = behaviour.asked["answered"]
    found = journal.read([allowance.folder])
    assert len(found.answers) + len(found.lost) >= 8
    assert len(list(settle(MeteredEngine(OpenAIFuser(config), allowance), questions(12), config))) == 12
    assert behaviour.asked["answered"] == paid + 12 - len(found.answers)


def test_a_copy_that_spark_starts_beside_a_slow_task_pays_nothing(start: Start, tmp_path: Path) -> None:
    base_url, behaviour = start(latency_s=0.3)
    config, allowance = openai(base_url, concurrency=2), Allowance(str(tmp_path / "slice"))
    done: list[list[Settled]] = []

    def attempt() -> None:
        done.append(list(settle(MeteredEngine(OpenAIFuser(config), allowance), questions(12), config)))

    copies = [threading.Thread(target=attempt) for _ in range(2)]
    for copy in copies:
        copy.start()
        time.sleep(0.5)
    for copy in copies:
        copy.join(60)
    assert [len(rows) for rows in done] == [12, 12]
    assert behaviour.asked == {"answered": 12}


def test_an_attempt_that_spark_starts_again_does_not_ask_a_server_that_refused(start: Start, tmp_path: Path) -> None:
    base_url, behaviour = start(api_key="right")
    config, allowance = openai(base_url, concurrency=1), Allowance(str(tmp_path / "slice"))
    for _ in range(4):
        with pytest.raises(InputError, match="refuses the API key"):
            list(settle(MeteredEngine(OpenAIFuser(config), allowance), questions(12), config))
    assert behaviour.asked == {"refused": 1}
    assert journal.read([allowance.folder]).lost == {}


def test_a_line_that_was_cut_was_not_answered(tmp_path: Path) -> None:
    book = journal.Journal(str(tmp_path / "slice/0"))
    for name in "abc":
        book.asked((name, "fused", 0), 50, 0.5)
    book.answered(("a", "fused", 0), Answer("An a.", None, 3, 4, 0.1))
    book.refused(("c", "fused", 0))
    book.close()
    [file] = (tmp_path / "slice/0").iterdir()
    with file.open("ab") as out:
        out.write(b'{"k": ["b", "fus')
    found = journal.read([str(tmp_path / "slice")])
    assert found.answers == {("a", "fused", 0): Answer("An a.", None, 3, 4, 0.1)}
    assert found.lost == {("b", "fused", 0): (50, 0.5)}
    assert journal.folders(str(tmp_path)) == [f"{tmp_path}/slice"]
    journal.remove(str(tmp_path / "slice"), within=str(tmp_path))
    assert journal.folders(str(tmp_path)) == []


def test_a_cap_stops_a_run_and_a_higher_one_goes_on(
    start: Start, capsfusion: Cli, spark: "SparkSession", bridges: Callable[[int], Path], captioned_lake: MakeLake
) -> None:
    base_url, behaviour = start(random_usage=True)
    lake = captioned_lake(bridges(60))
    settings = [
        "--set", f"fuser.base_url={base_url}", "--set", "fuser.model=m", "--set", "fuser.usd_per_million_in=1000.0",
        "--set", "fuser.usd_per_million_out=1000.0", "--set", "fuser.retries=0", "--set", "fuser.canaries=0.0",
    ]  # fmt: skip
    code, _, err = capsfusion("fuse", "--lake", lake, "--fuser", "openai", *settings, "--max-usd", 6)
    assert code == 3
    assert "the budget is used up" in err
    assert "raise --max-usd" in err

    def spent() -> tuple[float, float, int]:
        usd = spark.sql(f"select sum(settled_usd) from delta.`{lake}/spend`").collect()[0][0]
        rows = spark.sql(f"select sum(cost_usd), count(*) from delta.`{lake}/fused_captions`").collect()[0]
        return usd, rows[0], rows[1]

    usd, in_rows, made = spent()
    assert 0 < made < 60
    assert usd == pytest.approx(in_rows)
    assert usd <= 6
    assert behaviour.asked["answered"] == made
    code, _, err = capsfusion("fuse", "--lake", lake, "--max-usd", 6)  # earlier spending still counts
    assert code == 3
    assert spent()[0] <= 6
    made = spent()[2]
    assert capsfusion("fuse", "--lake", lake, "--max-rows", made + 5)[0] == 3
    assert spent()[2] == made + 5
    assert capsfusion("fuse", "--lake", lake)[0] == 0
    usd, in_rows, made = spent()
    assert made == 60 == behaviour.asked["answered"]
    assert usd == pytest.approx(in_rows)
    assert not list((lake / "_capsfusion/journal").glob("*/*"))


def test_a_journal_of_a_killed_run_is_used_and_its_lost_requests_are_counted(
    start: Start, capsfusion: Cli, spark: "SparkSession", bridges: Callable[[int], Path], captioned_lake: MakeLake
) -> None:
    base_url, behaviour = start()
    lake = captioned_lake(bridges(10))
    settings = ["--fuser", "openai", "--set", f"fuser.base_url={base_url}", "--set", "fuser.model=m"]
    settings += ["--set", "fuser.canaries=0.0", "--max-rows", "1"]
    assert capsfusion("fuse", "--lake", lake, *settings)[0] == 3
    ids = [r[0] for r in spark.sql(f"select pair_id from delta.`{lake}/pairs`").collect()]
    done = {r[0] for r in spark.sql(f"select pair_id from delta.`{lake}/fused_captions`").collect()}
    due = [i for i in ids if i not in done]
    [root] = (lake / "_capsfusion/journal").iterdir()
    book = journal.Journal(f"{root}/20260101-000000-aaaaaa~00001/0")
    for i in due[:4]:
        book.asked((i, "fused", 0), 500, 0.01)
    for i in due[:3]:
        book.answered((i, "fused", 0), Answer("A bridge is over the water of Lisbon.", None, 30, 9, 0.002))
    book.close()
    code, _, err = capsfusion("fuse", "--lake", lake)
    assert code == 0
    assert "3 answers of a run that was stopped are used; 1 requests were in flight" in err
    assert behaviour.asked["answered"] == 1 + 6
    rows = spark.sql(f"select count(*), count(distinct pair_id), sum(cost_usd) from delta.`{lake}/fused_captions`")
    assert [tuple(r) for r in rows.collect()] == [(10, 10, pytest.approx(0.006))]
    spend = spark.sql(
        f"select lost_requests, lost_usd, settled_usd from delta.`{lake}/spend` where run_id like '20260101%'"
    )
    assert [tuple(r) for r in spend.collect()] == [(1, pytest.approx(0.01), pytest.approx(0.016))]
    assert not list(root.iterdir())


def test_sixteen_tasks_keep_to_one_cap(start: Start, run: Any, tmp_path: Path) -> None:
    from functools import partial

    from capsfusion_etl.stages.fuse.worker import fuse_batches
    from capsfusion_etl.tables import FUSED_CAPTIONS

    base_url, behaviour = start(random_usage=True, latency_s=0.01)
    config = openai(base_url, concurrency=8)
    rows = [(q.pair_id, q.raw_caption, q.synthetic_caption) for q in questions(400)]
    frame = run.lake.spark.createDataFrame(rows, "pair_id string, raw_caption string, synthetic_caption string")
    job = partial(
        fuse_batches, config=config, strategy="fused", params_hash="p", run_id="r",
        allowance=Allowance(str(tmp_path / "slice"), usd=50.0 / 16),
    )  # fmt: skip
    out = frame.repartition(16).mapInArrow(job, FUSED_CAPTIONS.schema()).select("cost_usd").collect()
    assert 16 <= len(out) < 400
    assert sum(r["cost_usd"] for r in out) <= 50.0
    found = journal.read([str(tmp_path / "slice")])
    assert len(found.answers) == len(out) == behaviour.asked["answered"]


def test_arrow_rows_of_an_empty_batch() -> None:
    from capsfusion_etl.stages.fuse.worker import fuse_batches

    empty = pa.RecordBatch.from_pydict({"pair_id": [], "raw_caption": [], "synthetic_caption": []})
    assert list(fuse_batches(iter([empty]), FuserConfig(), "raw", "p", "r", None)) == []
