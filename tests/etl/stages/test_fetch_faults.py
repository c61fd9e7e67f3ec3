"""Test the fetch under faults: killed executors and drivers, two runs on one lake, a full disk, a cut-off commit."""

import io
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pyspark
import pytest
from capsfusion_etl.lake.create import open_lake
from capsfusion_etl.lake.location import prepare
from capsfusion_etl.lake.run import Run
from capsfusion_etl.lake.saved_settings import remember
from capsfusion_etl.stages.ingest.config import SourceConfig
from capsfusion_etl.stages.ingest.stage import ingest
from deltalake import DeltaTable
from PIL import Image
from processes import below, until
from pyspark.sql import SparkSession

pytestmark = pytest.mark.storm
Cli = Callable[..., tuple[int, str, str]]
Server = tuple[str, Counter[str]]
ROWS, STEP, AT_ONCE, TASKS = 300, 60, 4, 2

# The command line with a small first slice, so that a kill comes after one commit and before the last.
SMALL_SLICES = f"""
from capsfusion_etl.stages.fetch import stage
from capsfusion_etl.cli.main import main
stage._FIRST_ROWS = {STEP}
main()
"""


@pytest.fixture
def server() -> Iterator[Server]:
    """URL of a server, and its requests by path. Each image is unique and takes 50 ms; every tenth path gives a 404."""
    asked: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked[self.path] += 1
            time.sleep(0.05)
            number = int(self.path[1:])
            Image.frombytes("RGB", (60, 40), os.urandom(7200)).save(out := io.BytesIO(), "PNG")
            self.send_response(200 if number % 10 else 404)
            self.send_header("Content-Length", str(len(out.getvalue())))
            self.end_headers()
            with suppress(OSError):  # the client was killed
                self.wfile.write(out.getvalue())

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("0.0.0.0", 0), Handler)  # all of 127.0.0.0/8
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}", asked
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def ingested(server: Server, spark: SparkSession, empty_lake: Path, tmp_path: Path) -> Callable[[Path, int], Path]:
    """Function that creates a lake with URLs to fetch on 40 hosts; it does not acquire the write lock of the lake."""

    def make(lake: Path, rows: int) -> Path:
        port = server[0].rpartition(":")[2]
        lines = (f"http://127.0.0.{i % 40 + 1}:{port}/{i},Bridge number {i} in Lisbon\n" for i in range(rows))
        (tmp_path / "pairs.csv").write_text("url,raw_caption\n" + "".join(lines))
        shutil.copytree(empty_lake, lake)
        prepare(str(lake))
        polite = {"allow_private": True, "concurrency": AT_ONCE, "retries": 0}
        remember(str(lake), {"fetch": polite})
        ingest(Run(open_lake(spark, str(lake))), SourceConfig(pairs=str(tmp_path / "pairs.csv")))
        return lake

    return make


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def go(lake: Path, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SMALL_SLICES, "fetch", "--lake", str(lake)]
        with (tmp_path / "stderr").open("w") as stderr:
            more = {"SPARK_LOCAL_IP": "127.0.0.1", **environment}
            started.append(subprocess.Popen(command, stderr=stderr, text=True, env=os.environ | more))
        return started[-1]

    yield go
    for process in started:
        process.kill()
        process.wait()


def images(lake: Path) -> Any:
    return DeltaTable(lake / "images").to_pandas(columns=["url", "image_id", "error", "run_id"])


def check_complete(lake: Path, rows: int) -> None:
    """Check that every URL has one row: an image, or the reason why there is none."""
    found = images(lake)
    assert (len(found), found["url"].nunique()) == (rows, rows)
    assert found["error"].value_counts().to_dict() == {"http_error": rows // 10}
    assert found["image_id"].nunique() == rows - rows // 10
    rejects = DeltaTable(lake / "rejects").to_pandas()
    assert (rejects["reason"] == "http_error").sum() == rows // 10


def test_killed_executors_and_drivers_lose_nothing_and_two_runs_take_turns(
    server: Server, ingested: Any, begin: Any, capsfusion: Cli, tmp_path: Path
) -> None:
    lake, asked = ingested(tmp_path / "lake", ROWS), server[1]
    home = str(Path(pyspark.__file__).parent)
    process = begin(lake, MASTER="local-cluster[2,1,1024]", SPARK_HOME=home)
    until(lambda: len(asked) > STEP // 2, process)
    below([process], "CoarseGrainedExecutorBackend")[0].kill()
    until(lambda: len(asked) > 2 * STEP, process)  # the fetch continued
    until(lambda: len(images(lake)) > 0, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    assert psutil.wait_procs(children, timeout=60)[1] == []
    committed = set(images(lake)["url"].str.rpartition("/")[2])
    before = Counter(asked)

    other = begin(lake, MASTER="local[2,4]")
    until(lambda: len(asked) > len(before), other)
    code, _, err = capsfusion("fetch", "--lake", lake)
    assert code == 0, err
    assert "another run works on this lake: waiting for it to end" in err
    assert other.wait(60) == 0
    check_complete(lake, ROWS)
    again = Counter(asked) - before
    assert set(again) == set(asked) - {f"/{path}" for path in committed}  # committed URLs were not requested again
    assert set(again.values()) == {1}


def test_a_full_disk_is_an_error_with_advice_and_costs_one_slice(
    server: Server, ingested: Any, capsfusion: Cli, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(64_000_000)
    lake = ingested(disk / "lake", 100)
    filler = disk / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(disk).free - 400_000))
    code, _, err = capsfusion("fetch", "--lake", lake)
    assert code not in (0, 70), err
    assert "no space left on the disk: make room and run the same command again" in err
    assert "Traceback" not in err
    filler.unlink()
    code, _, err = capsfusion("fetch", "--lake", lake)
    assert code == 0, err
    check_complete(lake, 100)


def test_what_a_killed_commit_left_is_no_row(server: Server, ingested: Any, capsfusion: Cli, tmp_path: Path) -> None:
    lake = ingested(tmp_path / "lake", 40)
    code, _, err = capsfusion("fetch", "--lake", lake)
    assert code == 0, err
    log = lake / "images" / "_delta_log"
    newest = max(log.glob("*.json"))
    file = next((lake / "images").glob("*.parquet"))
    shutil.copy(file, file.with_name(f"stray-{file.name}"))  # written, but in no commit
    half = newest.read_text()[: newest.stat().st_size // 2]
    (log / f".{int(newest.stem) + 1:020d}.json.0b6b3a8e.tmp").write_text(half)
    newest.with_suffix(".crc").write_text("{")  # Delta's checksum file of the version
    code, _, err = capsfusion("fetch", "--lake", lake)
    assert code == 0, err
    check_complete(lake, 40)
    assert max(server[1].values()) == 1
