"""Test the fetch: image descriptions, failures, retries, and where image bytes are stored."""

import io
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import host_of, host_sql
from capsfusion_etl.lake.blocklist import Blocked, url_hash
from capsfusion_etl.lake.image_files import image_bytes
from capsfusion_etl.lake.run import Run
from capsfusion_etl.stages.fetch.config import FetchConfig
from capsfusion_etl.stages.fetch.image import inspect, phash
from capsfusion_etl.stages.fetch.stage import failures
from capsfusion_etl.stages.fetch.stage import fetch as stage
from capsfusion_etl.stages.fetch.worker import fetch_all
from capsfusion_etl.stages.ingest.config import SourceConfig
from capsfusion_etl.stages.ingest.stage import ingest
from image_site import PAGES, Handler, fetch, picture
from PIL import Image
from pyspark.sql import SparkSession
from pyspark.sql import functions as F


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
    assert seen - imagehash.phash(full) <= 2  # `inspect` decodes a JPEG at a reduced size


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
        ("/zipped", "too_large"),
        ("/broken-brotli", "not_an_image"),
        ("/brotli-bomb", "too_large"),
        ("/no-gzip", "not_an_image"),
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
    names = ("far", "packed", "deflated", "unpacked", "brotli")
    far, packed, deflated, unpacked, brotlied = fetch(*(f"{server}/{name}" for name in names))
    assert (far.error, far.redirects) == (None, [f"{server}/far", f"{server}/moved"])
    assert packed.image_id == deflated.image_id == unpacked.image_id == brotlied.image_id == moved.image_id
    assert fetch(f"{server}/noai", robots=False)[0].error is None


def test_no_redirect_leads_to_what_was_taken_down(server: str) -> None:
    blocked = Blocked(urls=frozenset({url_hash(f"{server}/moved")}))
    [row] = fetch_all([f"{server}/far"], FetchConfig(allow_private=True), blocked)
    assert (row.error, row.detail) == ("taken_down", "a redirect leads to a url that was taken down")
    assert (row.final_url, row.redirects) == (f"{server}/far", [f"{server}/far"])
    assert [path for path, _ in Handler.asked] == ["/far"]
    named = Blocked(domains=frozenset({"b.example"}))
    assert (named.kind_of("http://x.B.example:8080/"), named.kind_of("http://bb.example/")) == ("domain", None)


def test_a_host_that_asks_for_patience_gets_it(server: str) -> None:
    rows = fetch(f"{server}/patience", *(f"{server}/{i}" for i in range(5)), per_host=1)
    assert [row.error for row in rows] == [None] * 6
    first, second, *_ = (at for path, at in Handler.asked)
    assert second - first >= 1.0  # delays the next request to this host, whatever its path


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
    """Function that writes a source of pairs with these URLs."""

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
    assert rows["large"]["path"].startswith("_images/")  # within the lake, which may be moved
    file = Path(run.lake.root, rows["large"]["path"])
    assert file.read_bytes() == PAGES["/large"][1]
    found = {row["url"].rpartition("/")[2]: row["bytes"] for row in image_bytes(run.lake).collect()}
    assert found == {"good": picture(), "flaky": picture(), "large": PAGES["/large"][1]}
    file.unlink()
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
