"""Fetch: addresses become pictures or reasons. Any number of addresses of any kind: a bad one costs one row.

One event loop a task, in a thread of its own, so that it goes on while Spark takes what is there; polite per host
(`polite`), to the public internet alone (`addresses`).
"""

import asyncio
import hashlib
import queue
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa

from capsfusion_etl.addresses import PublicResolver, RefusedError, parsed
from capsfusion_etl.arrow import arrow_schema
from capsfusion_etl.files import store
from capsfusion_etl.look import look
from capsfusion_etl.polite import Later, Schedule
from capsfusion_etl.tables import IMAGES

if TYPE_CHECKING:
    import aiohttp

ROWS_AT_ONCE = 64  # pictures: keep an Arrow batch at some megabytes
_SMALL = 65_536  # bytes
_READY = 4 * ROWS_AT_ONCE  # answers that may wait for Spark
_TRANSIENT = (429, 500, 502, 503, 504)
_OPTED_OUT = {"noai", "noimageai"}


@dataclass(frozen=True, slots=True)
class FetchConfig:
    """Manners and limits of the fetch.

    `enabled`: null means "if the captioner looks at pictures". `concurrency`: addresses of a task at once, `per_host`:
    of one host, `host_delay_s` between two of them. `timeout_s` is for the whole answer, `max_bytes` for the file,
    `max_pixels` for the decoded picture. A host that asks to wait longer than `max_wait_s` is not waited for. `resize`:
    longer side in pixels; null keeps the bytes. A picture of more than `inline_bytes` goes to a file in `files` (by
    default `_images` beside the tables) instead of the table. `robots`: honour X-Robots-Tag. `proxy` is an http://
    address that carries every request. `taken_down`: image_ids to refuse, which the job reads from the lake.
    """

    enabled: bool | None = None
    concurrency: int = 128
    per_host: int = 8
    host_delay_s: float = 0.0
    timeout_s: float = 10.0
    retries: int = 2
    max_wait_s: float = 30.0
    max_bytes: int = 20_000_000
    max_pixels: int = 60_000_000
    max_redirects: int = 5
    resize: int | None = None
    inline_bytes: int | None = None
    files: str | None = None
    user_agent: str = "capsfusion-lake (set fetch.user_agent to your contact)"
    robots: bool = True
    proxy: str | None = None
    allow_private: bool = False
    taken_down: frozenset[str] = frozenset()


@dataclass(slots=True)
class Fetched:
    """One row of `images` but for the run; `error` is a reason of the fetch stage."""

    url: str
    final_url: str | None = None
    image_id: str | None = None
    data: bytes | None = None
    path: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    phash: str | None = None
    contrast: float | None = None
    fetched_at: datetime | None = None
    seconds: float | None = None
    attempts: int = 0
    http_status: int | None = None
    error: str | None = None
    detail: str | None = None

    def as_row(self, run_id: str) -> dict[str, Any]:
        """The row of `images`."""
        values = asdict(self)
        return values | {"bytes": values.pop("data"), "run_id": run_id}


def fetch_batches(batches: Iterator[pa.RecordBatch], config: FetchConfig, run_id: str) -> Iterator[pa.RecordBatch]:
    """mapInArrow: batches with `url` in, rows of `images` out, in any order.

    The addresses of a task are read at once, so that its hosts can take turns.
    """
    schema = arrow_schema(IMAGES)
    urls = [url for batch in batches for url in batch.column("url").to_pylist()]
    part: list[dict[str, Any]] = []
    for row in fetch_all(urls, config):
        part.append(row.as_row(run_id))
        if len(part) == ROWS_AT_ONCE:
            yield pa.RecordBatch.from_pylist(part, schema=schema)
            part = []
    if part:
        yield pa.RecordBatch.from_pylist(part, schema=schema)


def fetch_all(urls: list[str], config: FetchConfig) -> Iterator[Fetched]:
    """Fetch every address, in any order; never raises for what the other side does."""
    ready: queue.Queue[Fetched | BaseException | None] = queue.Queue()
    space, stop = threading.Semaphore(_READY), threading.Event()

    def live() -> None:
        try:
            asyncio.run(_fetch(urls, config, ready, space, stop))
            ready.put(None)
        except BaseException as error:  # noqa: BLE001  raised again by who reads
            ready.put(error)

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    try:
        while (found := ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            space.release()
            yield found
    finally:
        stop.set()
        thread.join()


class _StoppedError(Exception):
    """Nobody reads any more."""


async def _fetch(
    urls: list[str],
    config: FetchConfig,
    ready: "queue.Queue[Fetched | BaseException | None]",
    space: threading.Semaphore,
    stop: threading.Event,
) -> None:
    async def work(row: Fetched) -> Later[Fetched] | None:
        if stop.is_set():
            raise _StoppedError
        later = await fetch_once(client, row, config)
        if later is None:
            while not space.acquire(blocking=False):  # Spark is behind
                if stop.is_set():
                    raise _StoppedError
                await asyncio.sleep(0.01)
            ready.put(row)
        return later

    jobs = ((_host(url), Fetched(url)) for url in urls)
    schedule = Schedule(jobs, at_once=config.concurrency, per_host=config.per_host, delay_s=config.host_delay_s)
    async with _client(config) as client:
        try:
            await schedule.run(work)
        except* _StoppedError:
            pass


@asynccontextmanager
async def _client(config: FetchConfig) -> "AsyncIterator[aiohttp.ClientSession]":
    import aiohttp

    open_to_all = config.allow_private or config.proxy is not None
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, resolver=None if open_to_all else PublicResolver())
    async with aiohttp.ClientSession(
        connector=connector, headers={"User-Agent": config.user_agent, "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False, trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as client:  # fmt: skip
        yield client


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


async def fetch_once(client: "aiohttp.ClientSession", row: Fetched, config: FetchConfig) -> Later[Fetched] | None:
    """Ask once for an address and look at the answer: None if that is that, or when to ask again."""
    row.attempts += 1
    started = time.monotonic()
    try:
        async with asyncio.timeout(config.timeout_s):
            data = await _get(client, row, config)
        # A small file takes less time than to hand it to a thread and back.
        if len(data) > _SMALL:
            await asyncio.to_thread(_describe, row, data, config)
        else:
            _describe(row, data, config)
    except (RefusedError, TimeoutError) as failed:
        refused = failed if isinstance(failed, RefusedError) else _too_slow(config)
        later = _again(refused, row, config)
        if later is not None:
            return later
        row.error, row.detail = refused.reason, refused.detail
    row.fetched_at, row.seconds = datetime.now(UTC), round(time.monotonic() - started, 3)
    return None


def described(row: Fetched, data: bytes | None, config: FetchConfig) -> Fetched:
    """The row of a picture that is here already: described, or with the reason why it is none. `data` is None if it
    was too large to be read."""
    try:
        if data is None:
            raise RefusedError("too_large", f"more than {config.max_bytes} bytes")
        _describe(row, data, config)
    except RefusedError as refused:
        row.error, row.detail = refused.reason, refused.detail
    row.fetched_at = datetime.now(UTC)
    return row


def _describe(row: Fetched, data: bytes, config: FetchConfig) -> None:
    seen = look(data, max_pixels=config.max_pixels, resize=config.resize)
    image_id = hashlib.sha256(seen.data).hexdigest()
    if image_id in config.taken_down:
        raise RefusedError("taken_down", "image_id")
    row.width, row.height, row.format = seen.width, seen.height, seen.format
    row.phash, row.contrast = seen.phash, seen.contrast
    row.image_id, row.data = image_id, seen.data
    row.error = row.detail = None
    if config.inline_bytes is not None and len(seen.data) > config.inline_bytes:
        row.path, row.data = store(seen.data, str(config.files), f"{row.image_id}.{row.format}"), None


def _too_slow(config: FetchConfig) -> RefusedError:
    return RefusedError("timeout", f"no complete answer in {config.timeout_s:g} s")


def _again(refused: RefusedError, row: Fetched, config: FetchConfig) -> Later[Fetched] | None:
    transient = refused.reason in ("unreachable", "timeout") or row.http_status in _TRANSIENT
    wait_s = refused.retry_after_s or 0.0
    if not transient or row.attempts > config.retries or wait_s > config.max_wait_s:
        return None
    backoff_s = random.uniform(0.5, 1.0) * 0.5 * 2 ** (row.attempts - 1)
    return Later(row, max(backoff_s, wait_s), host_after_s=wait_s)


async def _get(client: "aiohttp.ClientSession", row: Fetched, config: FetchConfig) -> bytes:
    import aiohttp

    url = row.url
    for _ in range(config.max_redirects + 1):
        row.http_status = None
        address = parsed(url, private=config.allow_private or config.proxy is not None)
        try:
            async with client.get(address, allow_redirects=False, proxy=config.proxy) as response:
                row.http_status, row.final_url = response.status, str(response.url)
                if response.status in (301, 302, 303, 307, 308) and "Location" in response.headers:
                    url = str(response.url.join(type(response.url)(response.headers["Location"])))
                    continue
                return await _body(response, config)
        except TimeoutError:
            raise _too_slow(config) from None
        except aiohttp.InvalidURL as error:
            raise RefusedError("bad_url", str(error)) from None
        except (aiohttp.ClientError, OSError, UnicodeError, ValueError) as error:
            raise RefusedError("unreachable", f"{type(error).__name__}: {error}".strip(": ")[:200]) from None
    raise RefusedError("http_error", f"more than {config.max_redirects} redirects")


async def _body(response: "aiohttp.ClientResponse", config: FetchConfig) -> bytes:
    if response.status != 200:
        raise RefusedError("http_error", f"HTTP {response.status}", retry_after_s=_retry_after(response))
    for rule in response.headers.getall("X-Robots-Tag", []) if config.robots else ():
        if _opted_out(rule, config.user_agent):
            raise RefusedError("opted_out", f"X-Robots-Tag: {rule[:100]}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise RefusedError(
            "not_an_image", f"Content-Encoding {response.headers['Content-Encoding'][:40]} not asked for"
        )
    if (response.content_length or 0) > config.max_bytes:
        raise RefusedError("too_large", f"{response.content_length} bytes")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > config.max_bytes:
            raise RefusedError("too_large", f"more than {config.max_bytes} bytes")
    return bytes(body)


def _opted_out(rule: str, user_agent: str) -> bool:
    """Does an X-Robots-Tag, for all or for this program by name, say that models must not learn from it?"""
    agent, colon, rest = rule.partition(":")
    if colon and agent.strip().lower() not in _OPTED_OUT:
        if agent.strip().lower() != user_agent.split("/")[0].split()[0].lower():
            return False
        rule = rest
    return bool(_OPTED_OUT & {word.strip().lower() for word in rule.split(",")})


def _retry_after(response: "aiohttp.ClientResponse") -> float | None:
    """Seconds, or a date."""
    told = response.headers.get("Retry-After", "")
    if told.isdigit():
        return float(told)
    try:
        return max(0.0, (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def bind(config: FetchConfig, run_id: str) -> Any:
    """`fetch_batches` with its settings, ready for mapInArrow."""
    return partial(fetch_batches, config=config, run_id=run_id)
