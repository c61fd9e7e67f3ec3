"""Test the package for clusters: one zip for --py-files, on executors with only the documented libraries."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from capsfusion_etl.dev_server import Behaviour
from capsfusion_etl.snapshots.manifest import Manifest

ROOT = Path(__file__).parents[2]
CLEAN = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
UV = Path(sys.executable).with_name("uv")
DELTA = (
    "--packages",
    f"io.delta:delta-spark_{'.'.join(version('pyspark').split('.')[:2])}_2.13:{version('delta-spark')}",
    "--conf", "spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension",
    "--conf", "spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "--conf", "spark.databricks.delta.snapshotPartitions=2",
    "--conf", "spark.sql.shuffle.partitions=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of `make dist`, run in a copy of the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("etl", "quality", "trainer", "k8s"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, tree)
    venv = tree / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "uv").symlink_to(UV)
    (venv / ".installed").touch()
    subprocess.run(["make", "dist"], cwd=tree, check=True)
    return tree / "dist"


@pytest.fixture(scope="module")
def bare(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a Python that has only the libraries of docs/running.md, taken from the metadata of the wheel."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    [wheel] = dist.glob("*.whl")
    install = [UV, "pip", "install", "--quiet", "--python", folder, "--constraints", ROOT / "requirements.lock"]
    spark = [f"{name}=={version(name)}" for name in ("pyspark", "delta-spark")]
    subprocess.run([*install, f"{wheel}[workers,quality]", *spark], check=True)
    subprocess.run([UV, "pip", "uninstall", "--quiet", "--python", folder, "capsfusion-lake"], check=True)
    return folder / "bin"


def submit(bare: Path, dist: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    [home] = bare.parent.glob("lib/*/site-packages/pyspark")
    environment = CLEAN | {
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": str(bare / "python"),
    }
    command = [
        bare / "spark-submit", "--master", "local-cluster[1,2,1024]", *DELTA,
        "--py-files", dist / "capsfusion-etl.zip", dist / "run.py", *arguments,
    ]  # fmt: skip
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=environment, cwd=dist, timeout=900
    )


def test_spark_submit_with_the_zip_alone(
    bare: Path, dist: Path, start: Callable[..., tuple[str, Behaviour]], pairs_file: Path, tmp_path: Path
) -> None:
    found = subprocess.run(
        [bare / "python", "-c", "import capsfusion_etl"], capture_output=True, check=False, env=CLEAN
    )
    assert found.returncode != 0
    base_url, _ = start()
    lake = tmp_path / "lake"
    engine = ("--fuser", "openai", "--set", f"fuser.base_url={base_url}", "--set", "fuser.model=m")
    lenient = ("--set", "gate.rules.fused_captions.accepted.min=0", "--set", "dedup.near_captions=0.7")
    done = submit(bare, dist, "run", "--lake", lake, "--pairs", pairs_file, "--captioner", "column", *engine, *lenient)
    assert done.returncode == 0, done.stderr[-3000:]
    manifest = Manifest.parse((lake / "_capsfusion/snapshots/s0001.json").read_text())
    assert manifest.gate.passed
    assert manifest.rows >= 3
    assert (lake / "report.html").is_file()
