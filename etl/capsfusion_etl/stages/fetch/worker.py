"""Fetch: addresses become pictures or reasons. Any number of addresses of any kind: a bad one costs one row.

One event loop a task, in a thread of its own, so that it goes on while Spark takes what is there; polite per host
(`polite`), to the public internet alone (`addresses`).
"""

import asyncio
import queue
import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from capsfusion_etl.ids import host_of
from capsfusion_etl.stages.fetch.config import FetchConfig
from capsfusion_etl.stages.fetch.http import get, open_client
from capsfusion_etl.stages.fetch.image import ImageRow, RefusedError
from capsfusion_etl.stages.fetch.scheduler import Retry, Schedule
from capsfusion_etl.tables import IMAGES
from capsfusion_etl.tables.arrow import arrow_schema

if TYPE_CHECKING:
    import aiohttp

ROWS_AT_ONCE = 64  # pictures: keep an Arrow batch at some megabytes
_SMALL = 65_536  # bytes
_READY = 4 * ROWS_AT_ONCE  # answers that may wait for Spark
_TRANSIENT = (429, 500, 502, 503, 504)


def fetch_batches(
    batches: Iterator[pa.RecordBatch], config: FetchConfig, run_id: str, blocked: frozenset[str] = frozenset()
) -> Iterator[pa.RecordBatch]:
    """mapInArrow: batches with `url` in, rows of `images` out, in any order.

    The addresses of a task are read at once, so that its hosts can take turns.

    Args:
        blocked: image_ids to refuse, under whatever address.
    """
    schema = arrow_schema(IMAGES)
    urls = [url for batch in batches for url in batch.column("url").to_pylist()]
    part: list[dict[str, Any]] = []
    for row in fetch_all(urls, config, blocked):
        part.append(row.as_row(run_id))
        if len(part) == ROWS_AT_ONCE:
            yield pa.RecordBatch.from_pylist(part, schema=schema)
            part = []
    if part:
        yield pa.RecordBatch.from_pylist(part, schema=schema)


def fetch_all(urls: list[str], config: FetchConfig, blocked: frozenset[str] = frozenset()) -> Iterator[ImageRow]:
    """Fetch every address, in any order; never raises for what the other side does."""
    answers = _Answers()

    def live() -> None:
        try:
            asyncio.run(_fetch(urls, config, blocked, answers))
            answers.end()
        except BaseException as error:  # noqa: BLE001  raised again by who reads
            answers.end(error)

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    try:
        yield from answers
    finally:
        answers.stop()
        thread.join()


class _StoppedError(Exception):
    """Nobody reads any more."""


class _Answers:
    """From the loop's thread to Spark's; the loop waits while too many are not taken."""

    def __init__(self) -> None:
        self._ready: queue.Queue[ImageRow | BaseException | None] = queue.Queue()
        self._space, self._stopped = threading.Semaphore(_READY), threading.Event()

    async def put(self, row: ImageRow) -> None:
        while not self._space.acquire(blocking=False):  # Spark is behind
            self.check()
            await asyncio.sleep(0.01)
        self._ready.put(row)

    def check(self) -> None:
        if self._stopped.is_set():
            raise _StoppedError

    def end(self, error: BaseException | None = None) -> None:
        self._ready.put(error)

    def stop(self) -> None:
        self._stopped.set()

    def __iter__(self) -> Iterator[ImageRow]:
        while (found := self._ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            self._space.release()
            yield found


async def _fetch(urls: list[str], config: FetchConfig, blocked: frozenset[str], answers: _Answers) -> None:
    async def work(row: ImageRow) -> Retry[ImageRow] | None:
        answers.check()
        retry = await _once(client, row, config, blocked)
        if retry is None:
            await answers.put(row)
        return retry

    jobs = ((host_of(url), ImageRow(url)) for url in urls)
    schedule = Schedule(jobs, at_once=config.concurrency, per_host=config.per_host, delay_s=config.host_delay_s)
    async with open_client(config) as client:
        try:
            await schedule.run(work)
        except* _StoppedError:
            pass


async def _once(
    client: "aiohttp.ClientSession", row: ImageRow, config: FetchConfig, blocked: frozenset[str]
) -> Retry[ImageRow] | None:
    """Ask once for an address and look at the answer: None if that is that, or when to ask again."""
    row.attempts, row.http_status = row.attempts + 1, None
    started = time.monotonic()
    try:
        response = await get(client, row.url, config)
        row.http_status, row.final_url = response.status, response.url
        # A small file takes less time than to hand it to a thread and back.
        if len(response.body) > _SMALL:
            await asyncio.to_thread(row.describe, response.body, config, blocked)
        else:
            row.describe(response.body, config, blocked)
    except RefusedError as refused:
        row.http_status, row.final_url = refused.status or row.http_status, refused.url or row.final_url
        retry = _again(refused, row, config)
        if retry is not None:
            return retry
        row.refuse(refused)
    row.fetched_at, row.seconds = datetime.now(UTC), round(time.monotonic() - started, 3)
    return None


def _again(refused: RefusedError, row: ImageRow, config: FetchConfig) -> Retry[ImageRow] | None:
    transient = refused.reason in ("unreachable", "timeout") or row.http_status in _TRANSIENT
    wait_s = refused.retry_after_s or 0.0
    if not transient or row.attempts > config.retries or wait_s > config.max_wait_s:
        return None
    backoff_s = random.uniform(0.5, 1.0) * 0.5 * 2 ** (row.attempts - 1)
    return Retry(row, max(backoff_s, wait_s), host_after_s=wait_s)
