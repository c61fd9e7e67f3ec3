import asyncio
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from capsfusion_etl.fetch import FetchConfig, Fetched, fetch_all
from PIL import Image


def picture(size: tuple[int, int] = (80, 60), kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize(size).save(out, kind)
    return out.getvalue()


class Handler(BaseHTTPRequestHandler):
    asked: dict[str, int] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        count = self.asked[self.path] = self.asked.get(self.path, 0) + 1
        status, body, headers = 200, picture(), {}
        if self.path == "/text":
            body = b"<html>not here</html>"
        elif self.path == "/truncated":
            body = picture((800, 600), "JPEG")[:900]
        elif self.path == "/gone":
            status = 404
        elif self.path == "/flaky" and count == 1:
            status = 503
        elif self.path == "/moved":
            status, headers = 302, {"Location": "/good"}
        elif self.path == "/loop":
            status, headers = 302, {"Location": "/loop"}
        elif self.path == "/big":
            body = b"x" * 300_000
        elif self.path == "/slow":
            threading.Event().wait(3)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.asked = {}
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()
    thread.join()


def fetch(*urls: str, **changes: object) -> list[Fetched]:
    config = FetchConfig(**{"allow_private": True, "max_bytes": 200_000, "timeout_s": 1.0, **changes})  # type: ignore[arg-type]
    return asyncio.run(fetch_all(list(urls), config))


def test_a_picture_is_described(server: str) -> None:
    [row] = fetch(f"{server}/good")
    assert (row.error, row.http_status, row.width, row.height, row.format) == (None, 200, 80, 60, "png")
    assert len(row.image_id or "") == 64
    assert len(row.phash or "") == 16
    assert (row.contrast or 0) > 50


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/text", "not_an_image"),
        ("/truncated", "not_an_image"),
        ("/gone", "http_error"),
        ("/loop", "http_error"),
        ("/big", "too_large"),
        ("/slow", "timeout"),
    ],
)
def test_a_bad_address_costs_one_row(server: str, path: str, reason: str) -> None:
    bad, good = fetch(f"{server}{path}", f"{server}/good", retries=0)
    assert (bad.error, bad.data, bad.image_id) == (reason, None, None)
    assert good.error is None


def test_a_server_error_is_tried_again_and_a_redirect_followed(server: str) -> None:
    assert [row.error for row in fetch(f"{server}/flaky", f"{server}/moved")] == [None, None]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://a.example/x.jpg", "bad_url"),
        ("no address", "bad_url"),
        ("http://[broken", "bad_url"),
        ("", "bad_url"),
        ("http://127.0.0.1:9/x.jpg", "refused_address"),
        ("http://localhost/x.jpg", "refused_address"),
        ("http://169.254.169.254/latest/meta-data", "refused_address"),
    ],
)
def test_addresses_that_are_never_asked(url: str, reason: str) -> None:
    [row] = fetch(url, allow_private=False)
    assert row.error == reason


def test_too_many_pixels(server: str) -> None:
    assert fetch(f"{server}/good", max_pixels=100)[0].error == "too_large"
