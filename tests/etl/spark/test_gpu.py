"""Test how Spark assigns GPUs, on a local cluster whose discovery script reports two GPUs that do not exist."""

import json
from pathlib import Path
from typing import Any

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.spark.gpu import _profile
from processes import on_cluster

SCRIPT = """
import json, os, sys, time
import pyarrow as pa
from pyspark.sql import SparkSession
from capsfusion_etl.spark.gpu import map_on_gpu


def look(batches):
    began = time.time()
    rows = sum(len(batch) for batch in batches)
    time.sleep(1)
    text = json.dumps([os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid(), began, time.time(), rows])
    yield pa.RecordBatch.from_pydict({"text": [text]})


from pyspark import cloudpickle
cloudpickle.register_pickle_by_value(sys.modules[__name__])
script = sys.argv[1]
spark = SparkSession.builder.config(map={
    "spark.worker.resource.gpu.amount": "2", "spark.worker.resource.gpu.discoveryScript": script,
    "spark.dynamicAllocation.enabled": "true", "spark.dynamicAllocation.shuffleTracking.enabled": "true",
    "spark.dynamicAllocation.maxExecutors": "1", "spark.executor.cores": "2", "spark.executor.memory": "512m",
    "spark.sql.adaptive.enabled": "false", "spark.sql.shuffle.partitions": "4",
}).getOrCreate()
schema = "text string"
rows = spark.range(64).repartition(6)
gpu = {"gpu": 2, "cores": 2, "memory": "512m", "discoveryScript": script}
print("CPU", json.dumps([r["text"] for r in map_on_gpu(rows, look, schema, {}).collect()]))
print("GPU", json.dumps([r["text"] for r in map_on_gpu(rows, look, schema, gpu).collect()]))
"""


def test_each_worker_sees_one_gpu_and_cpu_stages_see_none(tmp_path: Path) -> None:
    discovery = tmp_path / "gpus.sh"
    discovery.write_text('#!/bin/sh\nprintf \'{"name": "gpu", "addresses": ["0", "1"]}\'\n')
    discovery.chmod(0o755)
    (tmp_path / "job.py").write_text(SCRIPT)
    printed = on_cluster("local-cluster[1,4,2048]", tmp_path / "job.py", discovery)
    told: dict[str, list[Any]] = {
        kind: [json.loads(text) for text in json.loads(texts)]
        for kind, _, texts in (line.partition(" ") for line in printed.splitlines())
    }
    assert {visible for visible, *_ in told["CPU"]} == {None}
    assert sum(rows for *_, rows in told["GPU"]) == 64
    assert {visible for visible, *_ in told["GPU"]} == {"0", "1"}
    for visible, pid, began, ended, _ in told["GPU"]:
        for other, pid_there, began_there, ended_there, _ in told["GPU"]:
            assert pid != pid_there or visible == other  # a process keeps its GPU
            together = pid != pid_there and began < ended_there and began_there < ended
            assert not together or visible != other


def test_a_profile_says_what_it_does_not_know() -> None:
    with pytest.raises(InputError, match="there is no gpus; there are gpu, cores"):
        _profile({"gpus": 1})
