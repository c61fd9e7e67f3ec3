"""Test paid fusion when the driver, an executor or a Python worker is killed with SIGKILL, as the OOM killer does."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pyspark
import pytest
from capsfusion_etl.dev_server import Behaviour
from processes import below, free_port, until

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.storm
Start = Callable[..., tuple[str, Behaviour]]
Cli = Callable[..., tuple[int, str, str]]
Fuse = Callable[..., subprocess.Popen[str]]
Cluster = tuple[str, list[subprocess.Popen[bytes]]]
HOME = str(Path(pyspark.__file__).parent)
ROWS, IN_FLIGHT, TASKS = 160, 4, 2
SPECULATION = """
spark.speculation true
spark.speculation.quantile 0.5
spark.speculation.multiplier 1.1
spark.eventLog.enabled true
spark.eventLog.compress false
spark.eventLog.rolling.enabled true
spark.eventLog.dir file://{events}
"""


@pytest.fixture(scope="module")
def captioned(captioned_lake: Callable[[Path], Path], bridges: Callable[[int], Path]) -> Path:
    return captioned_lake(bridges(ROWS))


@pytest.fixture
def lake(captioned: Path, tmp_path: Path) -> Path:
    """A lake whose pairs are due for fusion."""
    return Path(shutil.copytree(captioned, tmp_path / "lake"))


@pytest.fixture
def fuse(lake: Path, tmp_path: Path) -> Iterator[Fuse]:
    """Function that starts `capsfusion fuse` on the lake in a separate process."""
    started: list[subprocess.Popen[str]] = []

    def go(base_url: str, **environment: str) -> subprocess.Popen[str]:
        command = [
            sys.executable, "-m", "capsfusion_etl.cli", "fuse", "--lake", str(lake), "--fuser", "openai", "--set",
            f"fuser.base_url={base_url}", "--set", "fuser.model=m", "--set", f"fuser.concurrency={IN_FLIGHT}", "--set",
            "fuser.canaries=0.0", "--set", "fuser.usd_per_million_in=10.0",
        ]  # fmt: skip
        with (tmp_path / "stderr").open("w") as stderr:
            started.append(
                subprocess.Popen(
                    command, stderr=stderr, text=True, env=os.environ | {"SPARK_LOCAL_IP": "127.0.0.1"} | environment
                )
            )
        return started[-1]

    yield go
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A standalone master and two one-core workers. Spark starts no second copy of a task on the same host."""
    port = free_port()
    master, daemons = f"spark://127.0.0.1:{port}", list[subprocess.Popen[bytes]]()

    def launch(role: str, *arguments: str) -> None:
        command = [f"{HOME}/bin/spark-class", f"org.apache.spark.deploy.{role.lower()}.{role}", *arguments]
        environment = os.environ | {"SPARK_HOME": HOME, "SPARK_DAEMON_MEMORY": "256m"}
        with (tmp_path / f"{role}{len(daemons)}.log").open("w") as log:
            daemons.append(subprocess.Popen(command, stderr=log, stdout=log, env=environment))

    launch("Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0")
    for host in ("127.0.0.1", "127.0.0.2"):
        launch("Worker", "--host", host, "--cores", "1", "--memory", "1g", "--webui-port", "0", master,
               "--work-dir", str(tmp_path / host))  # fmt: skip
    yield master, daemons
    left = [*(child for daemon in daemons for child in psutil.Process(daemon.pid).children(recursive=True)), *daemons]
    for process in left:
        process.kill()
    for daemon in daemons:
        daemon.wait()


def table(spark: "SparkSession", lake: Path, what: str) -> tuple[Any, ...]:
    return tuple(spark.sql(what.replace("LAKE", f"delta.`{lake}")).collect()[0])


def test_a_driver_that_is_killed_pays_again_for_what_was_in_flight_only(
    start: Start, fuse: Fuse, capsfusion: Cli, lake: Path, spark: "SparkSession"
) -> None:
    base_url, behaviour = start(latency_s=0.1)
    process = fuse(base_url, MASTER="local[2,4]")
    until(lambda: behaviour.asked.get("answered", 0) > 60, process)  # the second slice is running
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    assert psutil.wait_procs(children, timeout=60)[1] == []
    before = table(spark, lake, "select count(*) from LAKE/fused_captions`")[0]
    assert 0 < before < ROWS
    code, _, err = capsfusion("fuse", "--lake", lake)
    assert code == 0, err
    assert "answers of a run that was stopped are used" in err, err
    rows = table(spark, lake, "select count(*), count(distinct pair_id) from LAKE/fused_captions`")
    lost, settled = table(spark, lake, "select sum(lost_requests), sum(settled_usd) from LAKE/spend`")
    assert rows == (ROWS, ROWS)
    assert lost <= IN_FLIGHT * TASKS
    assert ROWS <= behaviour.asked["answered"] <= ROWS + lost
    assert settled >= table(spark, lake, "select sum(cost_usd) from LAKE/fused_captions`")[0]


@pytest.mark.parametrize(("how", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_asked_to_stop_does_not_wait_for_its_job(
    start: Start, fuse: Fuse, tmp_path: Path, how: signal.Signals, status: int
) -> None:
    base_url, behaviour = start(latency_s=10)
    process = fuse(base_url, MASTER="local[2,4]")
    until(lambda: behaviour.asked, process)  # the job goes on for more than a minute
    process.send_signal(how)
    assert process.wait(20) == status
    assert "stopped; run the same command again to resume" in (tmp_path / "stderr").read_text()


def test_executors_and_workers_that_are_killed_lose_nothing_also_with_speculation(
    start: Start, fuse: Fuse, cluster: Cluster, lake: Path, spark: "SparkSession", tmp_path: Path
) -> None:
    base_url, behaviour = start(latency_s=0.1)
    events = tmp_path / "events"
    events.mkdir()
    (tmp_path / "spark-defaults.conf").write_text(SPECULATION.format(events=events))
    master, daemons = cluster
    process = fuse(base_url, MASTER=master, SPARK_HOME=HOME, SPARK_CONF_DIR=str(tmp_path))
    until(lambda: behaviour.asked.get("answered", 0) > 45, process)
    until(lambda: below(daemons, "CoarseGrainedExecutorBackend"), process)[0].send_signal(signal.SIGKILL)
    until(lambda: behaviour.asked.get("answered", 0) > 90, process)
    until(lambda: below(daemons, "pyspark.daemon"), process)[0].send_signal(signal.SIGKILL)
    assert process.wait(300) == 0, (tmp_path / "stderr").read_text()
    rows = table(spark, lake, "select count(*), count(distinct pair_id), sum(attempts) from LAKE/fused_captions`")
    assert rows == (ROWS, ROWS, ROWS)
    lost = table(spark, lake, "select sum(lost_requests) from LAKE/spend`")[0]
    assert 0 <= lost <= 2 * IN_FLIGHT * TASKS  # a worker outlives its executor for a moment and keeps writing
    assert ROWS <= behaviour.asked["answered"] <= ROWS + lost
    assert ("was lost with" in (tmp_path / "stderr").read_text()) == (lost > 0)
    started = [json.loads(line) for file in events.rglob("events_*") for line in file.read_text().splitlines()]
    assert any(event["Task Info"]["Speculative"] for event in started if event["Event"] == "SparkListenerTaskStart")
