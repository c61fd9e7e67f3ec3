"""What tests with processes of their own share."""

import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any


def until(true: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 240) -> Any:
    """Wait for something, while `process` lives."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
