"""Fixture that serves the test site of the fetch."""

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest
from image_site import Handler


@pytest.fixture
def server() -> Iterator[str]:
    """URL of the test site in `image_site`; `Handler.asked` records its requests."""
    Handler.asked = []
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()
    thread.join()
