import asyncio
import gzip
import io
import random
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import host_of, host_sql
from capsfusion_etl.lake.image_files import image_bytes
from capsfusion_etl.lake.run import Run
from capsfusion_etl.stages.fetch import http as module
from capsfusion_etl.stages.fetch.config import FetchConfig
from capsfusion_etl.stages.fetch.image import ImageRow, inspect, phash
from capsfusion_etl.stages.fetch.scheduler import Retry, Schedule
from capsfusion_etl.stages.fetch.ssrf import PublicResolver, is_public
from capsfusion_etl.stages.fetch.stage import failures
from capsfusion_etl.stages.fetch.stage import fetch as stage
from capsfusion_etl.stages.fetch.worker import fetch_all
from capsfusion_etl.stages.ingest.sources import SourceConfig
from capsfusion_etl.stages.ingest.stage import ingest
from PIL import Image
from pyspark.sql import SparkSession
from pyspark.sql import functions as F


def picture(size: tuple[int, int] = (80, 60), kind: str = "PNG", orientation: int = 1) -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.linear_gradient("L").resize(size).save(out, kind, exif=exif)
    return out.getvalue()


def bomb() -> bytes:
    """A PNG of a few kilobytes that says it has a billion pixels."""
    data = bytearray(picture())
    data[16:24] = (40_000).to_bytes(4, "big") + (40_000).to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


PAGES: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "/text": (200, b"<html>not here</html>", {}),
    "/truncated": (200, picture((800, 600), "JPEG")[:900], {}),
    "/gone": (404, b"", {}),
    "/moved": (302, b"", {"Location": "/good?moved"}),
    "/loop": (302, b"", {"Location": "/loop"}),
    "/to-metadata": (302, b"", {"Location": "http://169.254.169.254/latest/meta-data"}),
    "/to-file": (302, b"", {"Location": "file:///etc/passwd"}),
    "/big": (200, b"x" * 300_000, {}),
    "/bomb": (200, bomb(), {}),
    "/zipped": (200, gzip.compress(b"\0" * 10_000_000), {"Content-Encoding": "gzip"}),
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
        except OSError:  # who asked has gone
            pass

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.asked = []
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()
    thread.join()


def fetch(*urls: str, **changes: object) -> list[ImageRow]:
    config = FetchConfig(**{"allow_private": True, "max_bytes": 200_000, "timeout_s": 1.0, **changes})  # type: ignore[arg-type]
    rows = {row.url: row for row in fetch_all(list(urls), config)}
    return [rows[url] for url in urls]


def test_a_picture_is_described(server: str) -> None:
    [row] = fetch(f"{server}/good")
    assert (row.error, row.http_status, row.width, row.height, row.format) == (None, 200, 80, 60, "png")
    assert (row.final_url, row.attempts, row.data) == (f"{server}/good", 1, picture())
    assert len(row.image_id or "") == 64
    assert len(row.phash or "") == 16
    assert (row.contrast or 0) > 50
    assert 0 < (row.seconds or 0) < 1


def test_the_perceptual_hash_is_the_usual_one() -> None:
    import imagehash

    chance = random.Random(0)
    for _ in range(20):
        noise = Image.frombytes("L", (9, 7), chance.randbytes(63)).resize((200, 150))
        assert phash(noise) == str(imagehash.phash(noise))
    full = Image.frombytes("RGB", (9, 7), chance.randbytes(189)).resize((640, 480))
    full.save(out := io.BytesIO(), "JPEG", quality=95)
    seen = imagehash.hex_to_hash(inspect(out.getvalue(), max_pixels=10**6).phash)
    assert seen - imagehash.phash(full) <= 2  # decoded at a quarter of its size


def test_a_picture_stands_upright_and_may_be_made_smaller(server: str) -> None:
    [sideways, large] = fetch(f"{server}/sideways", f"{server}/large", resize=100)
    assert (sideways.width, sideways.height) == (60, 80)
    assert (large.width, large.height, large.format) == (100, 75, "jpeg")
    with Image.open(io.BytesIO(large.data or b"")) as kept:
        assert kept.size == (100, 75)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/text", "not_an_image"),
        ("/truncated", "not_an_image"),
        ("/zipped", "not_an_image"),
        ("/gone", "http_error"),
        ("/loop", "http_error"),
        ("/never", "http_error"),
        ("/big", "too_large"),
        ("/bomb", "too_large"),
        ("/slow", "timeout"),
        ("/hangs", "timeout"),
        ("/to-file", "bad_url"),
        ("/noai", "opted_out"),
        ("/noai-us", "opted_out"),
    ],
)
def test_a_bad_address_costs_one_row(server: str, path: str, reason: str) -> None:
    bad, good = fetch(f"{server}{path}", f"{server}/good", retries=0)
    assert (bad.error, bad.data, bad.image_id) == (reason, None, None)
    assert good.error is None


def test_what_may_be_tried_again_is_and_redirects_are_followed(server: str) -> None:
    flaky, moved, others = fetch(f"{server}/flaky", f"{server}/moved", f"{server}/noai-others")
    assert (flaky.error, flaky.attempts) == (None, 2)
    assert (moved.error, moved.final_url) == (None, f"{server}/good?moved")
    assert others.error is None
    assert fetch(f"{server}/noai", robots=False)[0].error is None


def test_a_host_that_asks_for_patience_gets_it(server: str) -> None:
    rows = fetch(f"{server}/patience", *(f"{server}/{i}" for i in range(5)), per_host=1)
    assert [row.error for row in rows] == [None] * 6
    first, second, *_ = (at for path, at in Handler.asked)
    assert second - first >= 1.0  # whoever is asked next at this host


def test_a_host_is_asked_a_few_times_at_once_and_not_too_often() -> None:
    running: dict[str, int] = {}
    seen: dict[str, list[tuple[float, int]]] = {}

    async def work(job: tuple[str, int]) -> Retry[tuple[str, int]] | None:
        host, number = job
        running[host] = running.get(host, 0) + 1
        seen.setdefault(host, []).append((time.monotonic(), running[host]))
        await asyncio.sleep(0.02)
        running[host] -= 1
        first = sum(1 for _ in seen[host]) <= 3
        return Retry(job, after_s=0.05) if host == "a" and number == 0 and first else None

    jobs = [("a", ("a", i)) for i in range(12)] + [("b", ("b", i)) for i in range(12)]
    asyncio.run(Schedule(jobs, at_once=100, per_host=3, delay_s=0.01).run(work))
    assert len(seen["b"]) == 12
    assert 12 < len(seen["a"]) <= 15
    assert all(at_once <= 3 for host in seen.values() for _, at_once in host)
    assert min(retry - earlier for (earlier, _), (retry, _) in pairwise(seen["b"])) > 0.005
    assert seen["b"][0][0] < seen["a"][-1][0]  # one does not wait for the other


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://a.example/x.jpg", "bad_url"),
        ("no address", "bad_url"),
        ("http://[broken", "bad_url"),
        ("http://a.example:99999/x.jpg", "bad_url"),
        ("", "bad_url"),
        ("http://127.0.0.1:9/x.jpg", "refused_address"),
        ("http://127.1/x.jpg", "bad_url"),
        ("http://2130706433/x.jpg", "bad_url"),
        ("http://0x7f.0.0.1/x.jpg", "refused_address"),
        ("http://[::1]/x.jpg", "refused_address"),
        ("http://[::ffff:10.0.0.1]/x.jpg", "refused_address"),
        ("http://localhost/x.jpg", "refused_address"),
        ("http://169.254.169.254/latest/meta-data", "refused_address"),
    ],
)
def test_addresses_that_are_never_asked(url: str, reason: str) -> None:
    [row] = fetch(url, allow_private=False, retries=0)
    assert row.error == reason


def test_public_addresses() -> None:
    assert all(map(is_public, ("93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822")))
    assert not any(
        map(is_public, ("10.1.2.3", "100.64.0.1", "224.0.0.1", "fe80::1%eth0", "64:ff9b::7f00:1", "0.0.0.0"))
    )


class Recorded(AbstractResolver):
    """Says that a.example is public the first time and private afterwards; nothing is sent to either."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        address = "93.184.216.34" if len(self.asked) == 1 else "127.0.0.1"
        return [ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


def test_names_that_turn_private_and_redirects_to_metadata(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection is recorded: public ones are led to the test server, which plays the world."""
    import aiohttp
    from aiohttp.connector import TCPConnector

    resolver, connected = Recorded(), []
    port = int(server.rpartition(":")[2])

    async def connect(self: TCPConnector, *arguments: Any, addr_infos: Any, **options: Any) -> Any:
        connected.append(addr_infos[0][4][0])
        local = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        return await real(self, *arguments, addr_infos=local, **options)

    real = TCPConnector._wrap_create_connection
    monkeypatch.setattr(TCPConnector, "_wrap_create_connection", connect)
    monkeypatch.setattr(module, "PublicResolver", lambda: PublicResolver(resolver))
    monkeypatch.setattr(
        aiohttp, "TCPConnector", lambda **o: TCPConnector(**{**o, "ttl_dns_cache": 0, "use_dns_cache": False})
    )
    config = FetchConfig(retries=0, timeout_s=5.0)
    [first] = fetch_all(["http://a.example/to-metadata"], config)
    [second] = fetch_all(["http://a.example/good"], config)
    assert (first.error, first.detail) == ("refused_address", "169.254.169.254 is not on the public internet")
    assert (second.error, second.detail) == ("refused_address", "a.example is 127.0.0.1")
    assert connected == ["93.184.216.34"]
    assert resolver.asked == ["a.example", "a.example"]


def test_who_stops_reading_stops_the_fetch(server: str) -> None:
    rows = fetch_all([f"{server}/{i}" for i in range(2_000)], FetchConfig(allow_private=True))
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    asked = len(Handler.asked)
    time.sleep(0.3)
    assert asked < 1_000
    assert len(Handler.asked) - asked < 20


@pytest.fixture
def addresses(tmp_path: Path) -> Callable[..., SourceConfig]:
    """A source of pairs with these addresses."""

    def write(*urls: str) -> SourceConfig:
        path = tmp_path / "pairs.csv"
        path.write_text("url,raw_caption\n" + "".join(f"{url},Caption {i}\n" for i, url in enumerate(urls)))
        return SourceConfig(pairs=str(path))

    return write


def test_only_chosen_failures_are_tried_again(run: Run, server: str, addresses: Callable[..., SourceConfig]) -> None:
    ingest(run, addresses(*(f"{server}{path}" for path in ("/good", "/flaky", "/gone", "/text", "/large"))))
    config = FetchConfig(allow_private=True, retries=0, inline_bytes=2_000)
    stage(run, config)
    run.run_id += "-2"
    stage(run, config, ("5xx", "timeout"))
    rows = {row["url"].rpartition("/")[2]: row for row in run.lake.read("images").collect()}
    assert {name: row["error"] for name, row in rows.items()} == {
        "good": None, "flaky": None, "gone": "http_error", "text": "not_an_image", "large": None
    }  # fmt: skip
    assert sorted(path for path, _ in Handler.asked) == ["/flaky", "/flaky", "/gone", "/good", "/large", "/text"]
    assert {row["reason"] for row in run.lake.read("rejects").collect()} == {"http_error", "not_an_image"}
    assert rows["large"]["bytes"] is None
    assert Path(rows["large"]["path"]).read_bytes() == PAGES["/large"][1]
    found = {row["url"].rpartition("/")[2]: row["bytes"] for row in image_bytes(run.lake).collect()}
    assert found == {"good": picture(), "flaky": picture(), "large": PAGES["/large"][1]}
    Path(rows["large"]["path"]).unlink()
    with pytest.raises(Exception, match="is gone: fetch it again"):
        image_bytes(run.lake).collect()


def test_failures_have_names() -> None:
    assert failures(("timeout", "5xx", "429")) == (
        "(error = 'timeout') OR (error = 'http_error' AND http_status DIV 100 = 5) "
        "OR (error = 'http_error' AND http_status = 429)"
    )
    assert failures(()) == ""
    with pytest.raises(InputError, match="there is no such failure; there are bad_url"):
        failures(("slow",))


def test_hosts_of_addresses(spark: SparkSession) -> None:
    wanted = {
        "http://A.example:80/x": "a.example", "https://u:p@b.example/y": "b.example", "http://[::1]:8/z": "[::1]",
        "x": "", "https://a@b@c.example": "c.example", "http://d.example./x": "d.example", "//e.example/x": "",
        "HTTP://f.example?q=//g.example/": "f.example", "http://": "", "http://h.example#i": "h.example",
    }  # fmt: skip
    assert {url: host_of(url) for url in wanted} == wanted
    rows = spark.createDataFrame([(url,) for url in wanted], "url string")
    assert {row[0]: row[1] for row in rows.select("url", F.expr(host_sql("url"))).collect()} == wanted
    assert host_of("http://B\u00fccher.example/x") == "xn--bcher-kva.example"
