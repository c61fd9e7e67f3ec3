"""What tests with processes of their own share."""

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
    """Wait for something, while `process` lives."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def below(parents: Sequence[subprocess.Popen[Any]], word: str) -> list[psutil.Process]:
    """The living descendants of `parents` whose command line has `word`, the youngest first."""
    found = []
    for child in (child for parent in parents for child in psutil.Process(parent.pid).children(recursive=True)):
        # Some end between being listed and being asked, or are zombies.
        with contextlib.suppress(psutil.NoSuchProcess):
            if word in " ".join(child.cmdline()):
                found.append(child)
    return sorted(found, key=lambda child: -child.create_time())


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def on_cluster(master: str, script: Path, *arguments: object) -> str:
    """Run a script whose session's executors are processes of their own; returns what it printed."""
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
