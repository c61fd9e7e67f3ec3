"""Wait for what happens elsewhere, and talk to local ports."""

import socket
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing


def until(true: Callable[[], object], what: str, timeout_s: float = 120, every_s: float = 0.1) -> None:
    """Poll `true` until it holds.

    Raises:
        TimeoutError: it did not hold within `timeout_s`.
    """
    end = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout_s} s in vain until {what}")
        time.sleep(every_s)


def free_port() -> int:
    """Return a free local port."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Return whether /readyz on a local port answers 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
