"""Fetch: addresses become pictures or reasons. Any number of addresses of any kind: a bad one costs one row.

asyncio within each Arrow batch, polite per host; private addresses are refused at every redirect.
"""

import asyncio
import hashlib
import io
import ipaddress
import socket
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import pyarrow as pa

from capsfusion_etl.arrow import arrow_schema
from capsfusion_etl.tables import IMAGES

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True)
class FetchConfig:
    """Manners and limits of the fetch.

    `enabled`: null means "if the captioner looks at pictures". `timeout_s` is for the whole answer, `max_bytes` for the
    file, `max_pixels` for the decoded picture. `proxy` is an http:// address that carries every request.
    """

    enabled: bool | None = None
    concurrency: int = 64
    per_host: int = 4
    timeout_s: float = 10.0
    retries: int = 2
    max_bytes: int = 20_000_000
    max_pixels: int = 60_000_000
    max_redirects: int = 5
    user_agent: str = "capsfusion-lake (set fetch.user_agent to your contact)"
    proxy: str | None = None
    allow_private: bool = False


@dataclass(slots=True)
class Fetched:
    """One row of `images` but for the run; `error` is a reason of the fetch stage."""

    url: str
    image_id: str | None = None
    data: bytes | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    phash: str | None = None
    contrast: float | None = None
    fetched_at: datetime | None = None
    http_status: int | None = None
    error: str | None = None
    detail: str | None = None

    def as_row(self, run_id: str) -> dict[str, Any]:
        """The row of `images`."""
        values = asdict(self)
        return values | {"bytes": values.pop("data"), "run_id": run_id}


class _RefusedError(Exception):
    """This address gives no picture: `reason` from the closed list, and what was seen."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def fetch_batches(batches: Iterator[pa.RecordBatch], config: FetchConfig, run_id: str) -> Iterator[pa.RecordBatch]:
    """mapInArrow: batches with `url` in, rows of `images` out, in any order."""
    schema = arrow_schema(IMAGES)
    for batch in batches:
        rows = asyncio.run(fetch_all(batch.column("url").to_pylist(), config))
        for start in range(0, len(rows), 64):  # pictures: keep an Arrow batch at some megabytes
            part = [row.as_row(run_id) for row in rows[start : start + 64]]
            yield pa.RecordBatch.from_pylist(part, schema=schema)


async def fetch_all(urls: list[str], config: FetchConfig) -> list[Fetched]:
    """Fetch every address, at most `concurrency` at once and `per_host` from one host."""
    import httpx

    everyone = asyncio.Semaphore(config.concurrency)
    hosts: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(config.per_host))
    client = httpx.AsyncClient(
        timeout=config.timeout_s, headers={"User-Agent": config.user_agent}, proxy=config.proxy, trust_env=False
    )

    async def one(url: str) -> Fetched:
        async with hosts[_host(url)], everyone:
            return await fetch_one(client, url, config)

    async with client:
        return await asyncio.gather(*map(one, urls))


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


async def fetch_one(client: "httpx.AsyncClient", url: str, config: FetchConfig) -> Fetched:
    """Fetch and look at one address; never raises for what the other side does."""
    row = Fetched(url)
    try:
        for attempt in range(config.retries + 1):
            try:
                async with asyncio.timeout(config.timeout_s):
                    row.data = await _get(client, url, config, row)
                break
            except _RefusedError as refused:
                retry = refused.reason in ("unreachable", "timeout") or row.http_status in (429, 500, 502, 503, 504)
                if not retry or attempt == config.retries:
                    raise
            except TimeoutError:
                if attempt == config.retries:
                    raise _RefusedError("timeout", f"no complete answer in {config.timeout_s:g} s") from None
            await asyncio.sleep(0.25 * 2**attempt)
        await asyncio.to_thread(_look, row, config)
    except _RefusedError as refused:
        row.data, row.error, row.detail = None, refused.reason, refused.detail
    row.fetched_at = datetime.now(UTC)
    return row


async def _get(client: "httpx.AsyncClient", url: str, config: FetchConfig, row: Fetched) -> bytes:
    import httpx

    for _ in range(config.max_redirects + 1):
        await _check_address(url, config)
        row.http_status = None
        try:
            async with client.stream("GET", url) as response:
                row.http_status = response.status_code
                if response.is_redirect:
                    url = urljoin(url, response.headers["location"])
                    continue
                if response.status_code != 200:
                    raise _RefusedError("http_error", f"HTTP {response.status_code}")
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > config.max_bytes:
                        raise _RefusedError("too_large", f"more than {config.max_bytes} bytes")
                return bytes(body)
        except httpx.TimeoutException:
            raise _RefusedError("timeout", f"no answer in {config.timeout_s:g} s") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise _RefusedError("bad_url", str(error)) from None
        except httpx.HTTPError as error:
            raise _RefusedError("unreachable", f"{type(error).__name__}: {error}".strip(": ")) from None
    raise _RefusedError("http_error", f"more than {config.max_redirects} redirects")


async def _check_address(url: str, config: FetchConfig) -> None:
    """Only http(s), and only hosts of the public internet, unless a proxy decides that."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _RefusedError("bad_url", str(error)) from None
    if parts.scheme not in ("http", "https") or not host:
        raise _RefusedError("bad_url", "no http or https address")
    if config.allow_private or config.proxy:
        return
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port or 80, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _RefusedError("unreachable", f"no such host: {error}") from None
    for *_, address in found:
        if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global:
            raise _RefusedError("refused_address", f"{host} is {address[0]}")


def _look(row: Fetched, config: FetchConfig) -> None:
    """Decode the bytes and describe the picture."""
    import imagehash
    from PIL import Image, ImageOps, ImageStat, UnidentifiedImageError

    data = row.data or b""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > config.max_pixels:
                raise _RefusedError("too_large", f"{opened.width} x {opened.height} pixels")
            kind = (opened.format or "").lower()
            upright: Any = ImageOps.exif_transpose(opened)
            grey = upright.convert("L")
    except _RefusedError:
        raise
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        detail = f"{len(data)} bytes that are no picture" if isinstance(error, UnidentifiedImageError) else str(error)
        raise _RefusedError("not_an_image", detail) from None
    row.image_id = hashlib.sha256(data).hexdigest()
    row.width, row.height = upright.size
    row.format, row.phash = kind, str(imagehash.phash(grey))
    row.contrast = round(float(ImageStat.Stat(grey).stddev[0]), 3)


def bind(config: FetchConfig, run_id: str) -> Any:
    """`fetch_batches` with its settings, ready for mapInArrow."""
    return partial(fetch_batches, config=config, run_id=run_id)
