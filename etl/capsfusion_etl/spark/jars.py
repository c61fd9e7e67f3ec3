"""The jars of a local session: Ivy resolves them once, later sessions name the files.

Ivy takes two seconds of each start. Also, PySpark puts the jars of `spark.jars.packages` on the path of every Python
worker, which then searches 30 archives for each module that it imports, and copies them (100 MB) for each session.
"""

import hashlib
import json
import os
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pyspark
from pyspark.sql import SparkSession

from capsfusion_etl.storage import write_json


def recall(packages: list[str]) -> list[str]:
    """Return the jars of an earlier session with Delta and `packages` (Maven coordinates); empty if unknown.

    They are unknown, too, if a file is gone, or if the user's Spark has jars of its own, which they would replace.
    """
    folder = os.environ.get("SPARK_CONF_DIR") or f"{os.environ.get('SPARK_HOME') or Path(pyspark.__file__).parent}/conf"
    defaults = Path(folder) / "spark-defaults.conf"
    with suppress(OSError, ValueError):
        own = defaults.read_text(encoding="utf-8") if defaults.is_file() else ""
        if "spark.jars" in own or "PYSPARK_SUBMIT_ARGS" in os.environ:
            return []
        jars = [str(jar) for jar in json.loads(_file(packages).read_text(encoding="utf-8"))]
        return jars if all(Path(jar).is_file() for jar in jars) else []
    return []


def remember(packages: list[str], spark: SparkSession) -> None:
    """Keep the list of the jars that a session with `packages` has resolved; where that fails, do nothing."""
    jars = [jar.removeprefix("file://") for jar in spark.sparkContext.getConf().get("spark.jars", "").split(",") if jar]
    with suppress(OSError):
        _file(packages).parent.mkdir(parents=True, exist_ok=True)
        write_json(_file(packages), jars)


def _file(packages: list[str]) -> Path:
    versions = [version("pyspark"), version("delta-spark"), *packages]
    key = hashlib.sha256("\n".join(versions).encode()).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "capsfusion" / f"jars-{key}.json"
