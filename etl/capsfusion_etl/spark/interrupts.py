"""End a process when it is asked to: else a call to Spark's JVM lasts as long as its job, which may be minutes."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_asked: list[int] = []


def stop(number: int, _: object) -> None:
    """Handle SIGTERM and SIGINT: cancel the jobs of this process, and raise what unwinds the main thread.

    Raises:
        KeyboardInterrupt: for SIGINT.
        SystemExit: for other signals, with status 128 + `number`.
    """
    _asked.append(128 + number)
    if "pyspark" in sys.modules:
        _leave_call()
        threading.Thread(target=_cancel_jobs, daemon=True).start()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(_asked[-1])


@contextmanager
def handled_by(handler: Any, *kinds: signal.Signals) -> Iterator[None]:
    """Let `handler` have these signals within the block; other threads than the main one cannot set handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {kind: signal.signal(kind, handler) for kind in kinds}
    try:
        yield
    finally:
        for kind, theirs in before.items():
            signal.signal(kind, theirs)


def status_asked() -> int | None:
    """Return the status of the newest signal; while the stack unwinds, PySpark may raise that its job was cancelled."""
    return _asked[-1] if _asked else None


def _leave_call() -> None:
    """Give this thread a new connection to the JVM: over the old one, clean-ups would wait for the interrupted call."""
    from pyspark import SparkContext

    client = getattr(SparkContext._gateway, "_gateway_client", None)
    connections = getattr(client, "thread_connection", None)  # py4j has one for each thread, unless it has a pool
    if connections is not None:
        connections.connection = None


def _cancel_jobs() -> None:
    from pyspark import SparkContext

    context = SparkContext._active_spark_context
    if context is not None:
        with suppress(Exception):  # the JVM may have ended, too
            context.cancelAllJobs()
