"""Helpers for tests that start other processes."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil


def until(true: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 240) -> Any:
    """Poll `true` until its result is true and return it; fail if `process` ends or the time is up."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def below(parents: Sequence[subprocess.Popen[Any]], word: str) -> list[psutil.Process]:
    """Return the running descendants of `parents` whose command line contains `word`, the youngest first."""
    found = []
    for child in (child for parent in parents for child in psutil.Process(parent.pid).children(recursive=True)):
        # A process may have ended since it was listed, or be a zombie.
        with contextlib.suppress(psutil.NoSuchProcess):
            if word in " ".join(child.cmdline()):
                found.append(child)
    return sorted(found, key=lambda child: -child.create_time())


def free_port() -> int:
    """Return an unused TCP port of the loopback interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def on_cluster(master: str, script: Path, *arguments: object) -> str:
    """Run `script` with `master`, such as `local-cluster[...]`, whose executors are processes; return its stdout."""
    import pyspark

    environment = {
        "MASTER": master, "SPARK_HOME": str(Path(pyspark.__file__).parent), "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
