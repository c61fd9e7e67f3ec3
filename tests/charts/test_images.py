"""Tests of `make images` with programs that only say what they were asked."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAKE = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
case "$1 $2" in
  "image inspect") echo "registry/x@sha256:aaa" ;;
  "inspect --type") echo "sha256:aaa" ;;
esac
"""


def images(tmp_path: Path, engine: str | None, **settings: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the script in a copy of what it reads; return its result and what the engine was asked."""
    work, programs = tmp_path / "work", tmp_path / "programs"
    for file in ("k8s/images.sh", "pyproject.toml", "k8s/Dockerfile", "trainer/Dockerfile", "etl/Dockerfile"):
        (work / file).parent.mkdir(parents=True, exist_ok=True)
        (work / file).write_bytes((ROOT / file).read_bytes())
    programs.mkdir(exist_ok=True)
    for name in ("bash", "sed", "dirname", "basename", "touch", "env", "sh", "cat"):
        if not (programs / name).exists():
            (programs / name).symlink_to(str(shutil.which(name)))
    if engine:
        (programs / engine).write_text(FAKE)
        (programs / engine).chmod(0o755)
    log = tmp_path / "log"
    log.write_text("")
    environment = {"PATH": str(programs), "LOG": str(log)} | settings
    done = subprocess.run(
        ["bash", str(work / "k8s" / "images.sh")], env=environment, capture_output=True, text=True, check=False
    )
    return done, log.read_text().splitlines()


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
def test_with_each_program(tmp_path: Path, engine: str) -> None:
    done, asked = images(tmp_path, engine, REGISTRY="registry.example/c", PUSH="1")
    assert done.returncode == 0, done.stderr
    builds = [line for line in asked if line.startswith(f"{engine} build ")]
    assert [build.split("--tag ")[1].split()[0] for build in builds] == [
        f"registry.example/c/{name}:0.1.0" for name in ("operator", "trainer", "etl")
    ]
    assert all("--build-arg BASE=python:3.11.13-slim-bookworm@sha256:aaa" in build for build in builds)
    assert "--build-arg SPARK=apache/spark:4.2.0-scala2.13-java17-ubuntu@sha256:aaa" in builds[2]
    assert sum(line.startswith(f"{engine} pull python:") for line in asked) == 1  # then it is in images.lock
    assert "registry.example/c/operator@sha256:aaa" in done.stdout


def test_a_base_that_cannot_be_pulled_leaves_no_line_in_the_lock(tmp_path: Path) -> None:
    (tmp_path / "programs").mkdir()
    images(tmp_path, "docker", REGISTRY="registry.example/c")
    (tmp_path / "work" / "images.lock").unlink()
    broken = tmp_path / "programs" / "podman"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    done, _ = images(tmp_path, None, REGISTRY="registry.example/c", ENGINE="podman")
    assert (done.returncode != 0, "cannot pull python:3.11.13-slim-bookworm" in done.stderr) == (True, True)
    assert (tmp_path / "work" / "images.lock").read_text() == ""


def test_without_a_program_or_a_registry(tmp_path: Path) -> None:
    done, _ = images(tmp_path, None, REGISTRY="registry.example/c")
    assert (done.returncode, done.stderr) == (69, "images.sh: install docker, podman or buildah\n")
    done, _ = images(tmp_path, "docker")
    assert done.returncode != 0
    assert "say where the images shall lie" in done.stderr


def test_the_deadline_of_a_driver(tmp_path: Path) -> None:
    import sys

    script = tmp_path / "run.py"
    text = (ROOT / "etl/jobs/run.py").read_text().replace("from capsfusion_etl.cli.main import main", "import time")
    script.write_text(text.replace("    main()", "    time.sleep(60)"))
    done = subprocess.run(
        [sys.executable, str(script)], env=os.environ | {"CAPSFUSION_DEADLINE_S": "1"}, capture_output=True, text=True,
        timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == -15
    assert "CAPSFUSION_DEADLINE_S have passed" in done.stdout
