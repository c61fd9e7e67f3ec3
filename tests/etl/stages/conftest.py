"""Fixtures of stages: the test site of the fetch, and a lake whose pairs are due for fusion."""

import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

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


@pytest.fixture(scope="module")
def captioned(captioned_lake: Callable[[Path], Path], pairs_file: Path) -> Path:
    """A lake with five pairs that are due for fusion, created once for all tests."""
    return captioned_lake(pairs_file)


@pytest.fixture
def lake(captioned: Path, tmp_path: Path) -> Path:
    """A copy of that lake, for one test."""
    return Path(shutil.copytree(captioned, tmp_path / "lake"))
