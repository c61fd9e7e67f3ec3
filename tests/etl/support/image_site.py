"""A test site with good images and with the failures that a fetch can meet."""

import gzip
import io
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler

import brotli
from capsfusion_etl.stages.fetch.config import FetchConfig
from capsfusion_etl.stages.fetch.image import ImageRow
from capsfusion_etl.stages.fetch.worker import fetch_all
from PIL import Image


def picture(size: tuple[int, int] = (80, 60), kind: str = "PNG", orientation: int = 1) -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.linear_gradient("L").resize(size).save(out, kind, exif=exif)
    return out.getvalue()


def bomb() -> bytes:
    """Return a PNG of a few kilobytes whose header declares 1.6 billion pixels."""
    data = bytearray(picture())
    data[16:24] = (40_000).to_bytes(4, "big") + (40_000).to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


PAGES: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "/text": (200, b"<html>not here</html>", {}),
    "/truncated": (200, picture((800, 600), "JPEG")[:900], {}),
    "/gone": (404, b"", {}),
    "/moved": (302, b"", {"Location": "/good?moved"}),
    "/far": (301, b"", {"Location": "/moved"}),
    "/loop": (302, b"", {"Location": "/loop"}),
    "/to-metadata": (302, b"", {"Location": "http://169.254.169.254/latest/meta-data"}),
    "/to-file": (302, b"", {"Location": "file:///etc/passwd"}),
    "/big": (200, b"x" * 300_000, {}),
    "/bomb": (200, bomb(), {}),
    "/zipped": (200, gzip.compress(b"\0" * 10_000_000), {"Content-Encoding": "gzip"}),
    "/packed": (200, gzip.compress(picture()), {"Content-Encoding": "gzip"}),
    "/deflated": (200, zlib.compress(picture())[2:-4], {"Content-Encoding": "deflate"}),
    "/unpacked": (200, picture(), {"Content-Encoding": "none"}),
    "/brotli": (200, brotli.compress(picture()), {"Content-Encoding": "br"}),
    "/broken-brotli": (200, brotli.compress(picture())[:-9], {"Content-Encoding": "br"}),
    "/brotli-bomb": (200, brotli.compress(b"\0" * 10_000_000), {"Content-Encoding": "br"}),
    "/no-gzip": (200, picture(), {"Content-Encoding": "gzip"}),
    "/noai": (200, picture(), {"X-Robots-Tag": "noindex, NoAI"}),
    "/noai-others": (200, picture(), {"X-Robots-Tag": "otherbot: noai"}),
    "/noai-us": (200, picture(), {"X-Robots-Tag": "capsfusion-lake: noimageai"}),
    "/sideways": (200, picture((80, 60), "JPEG", orientation=6), {}),
    "/large": (200, picture((400, 300), "JPEG"), {}),
}


class Handler(BaseHTTPRequestHandler):
    asked: list[tuple[str, float]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append((self.path, time.monotonic()))
        count = sum(path == self.path for path, _ in self.asked)
        status, body, headers = PAGES.get(self.path, (200, picture(), {}))
        if self.path == "/flaky" and count == 1:
            status = 503
        elif self.path == "/patience" and count == 1:
            status, headers = 429, {"Retry-After": "1"}
        elif self.path == "/never":
            status, headers = 429, {"Retry-After": "3600"}
        elif self.path == "/slow":
            threading.Event().wait(3)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) + (self.path == "/hangs")))
        self.end_headers()
        try:
            for start in range(0, len(body), 65536):
                self.wfile.write(body[start : start + 65536])
            if self.path == "/hangs":
                threading.Event().wait(3)
        except OSError:  # the client has disconnected
            pass

    def log_message(self, format: str, *args: object) -> None:
        pass


def fetch(*urls: str, **changes: object) -> list[ImageRow]:
    config = FetchConfig(**{"allow_private": True, "max_bytes": 200_000, "timeout_s": 1.0, **changes})  # type: ignore[arg-type]
    rows = {row.url: row for row in fetch_all(list(urls), config)}
    return [rows[url] for url in urls]
