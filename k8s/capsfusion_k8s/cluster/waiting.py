"""Wait for what a cluster must have before the operator can work, and answer its probes meanwhile."""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

log = logging.getLogger("capsfusion.operator")
LOOKS_EVERY_S = 15.0


def wait_for(there: Callable[[], bool], missing: str, liveness: str | None) -> None:
    """Wait until `there` is true; say every minute what is missing.

    Args:
        liveness: URL at which the process says that it lives; it is ready only later, when it serves its metrics.
    """
    if there():
        return
    with _alive(liveness):
        looks = 0
        while True:
            if looks % 4 == 0:
                log.warning(missing)
            looks += 1
            time.sleep(LOOKS_EVERY_S)
            try:
                if there():
                    return
            except Exception as error:  # noqa: BLE001  the API server may be away for a while
                log.warning("cannot ask the API server: %s", error)


async def restart_when(changed: Callable[[], bool], said: str) -> None:
    """Replace this process once `changed` is true: watches start at the start only.

    A restart loses nothing: all state is in the cluster.
    """
    while True:
        await asyncio.sleep(LOOKS_EVERY_S)
        try:
            if await asyncio.to_thread(changed):
                log.warning(said)
                os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        except Exception as error:  # noqa: BLE001  retried
            log.debug("cannot ask the API server: %s", error)


@contextmanager
def _alive(address: str | None) -> Iterator[None]:
    if address is None:
        yield
        return
    parts = urlsplit(address)
    server = ThreadingHTTPServer((parts.hostname or "", parts.port or 80), _Alive)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Alive(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass
