"""Fetch stage, executor side: download URLs and inspect the images. A URL that fails becomes a row with a reason.

Each task runs one event loop in a thread of its own, so that downloads continue while Spark consumes the results.
`scheduler` limits the requests to each host, `ssrf` keeps them to the public internet.
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
from capsfusion_etl.lake.blocklist import Blocked
from capsfusion_etl.stages.fetch.config import FetchConfig
from capsfusion_etl.stages.fetch.http import get, open_client
from capsfusion_etl.stages.fetch.image import ImageRow, RefusedError
from capsfusion_etl.stages.fetch.scheduler import Retry, Schedule
from capsfusion_etl.tables import IMAGES
from capsfusion_etl.tables.arrow import arrow_schema, batch_of_rows

if TYPE_CHECKING:
    import aiohttp

ROWS_AT_ONCE = 64  # images in an Arrow batch: keeps it to a few megabytes
_SMALL = 65_536  # bytes up to which an image is inspected on the event loop
_READY = 4 * ROWS_AT_ONCE  # rows that may wait for Spark
_TRANSIENT = (429, 500, 502, 503, 504)


def fetch_batches(
    batches: Iterator[pa.RecordBatch], config: FetchConfig, run_id: str, blocked: Blocked | None = None
) -> Iterator[pa.RecordBatch]:
    """Fetch the URLs of Arrow batches (for `mapInArrow`); yield rows of `images`, in any order.

    All URLs of the task are read first, so that its hosts can be interleaved.

    Args:
        batches: a column `url`.
        blocked: takedown requests: no image that they name is stored, and no redirect to such a URL followed.
    """
    schema = arrow_schema(IMAGES)
    urls = [url for batch in batches for url in batch.column("url").to_pylist()]
    part: list[dict[str, Any]] = []
    for row in fetch_all(urls, config, blocked):
        part.append(row.as_row(run_id))
        if len(part) == ROWS_AT_ONCE:
            yield batch_of_rows(schema, part)
            part = []
    if part:
        yield batch_of_rows(schema, part)


def fetch_all(urls: list[str], config: FetchConfig, blocked: Blocked | None = None) -> Iterator[ImageRow]:
    """Fetch every URL and yield one row for each, in any order. A URL that fails gives a row with a reason."""
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
    """The consumer stopped reading."""


class _Answers:
    """Bounded queue from the thread of the event loop to the thread of Spark."""

    def __init__(self) -> None:
        self._ready: queue.Queue[ImageRow | BaseException | None] = queue.Queue()
        self._space, self._stopped = threading.Semaphore(_READY), threading.Event()

    async def put(self, row: ImageRow) -> None:
        while not self._space.acquire(blocking=False):  # back-pressure
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


async def _fetch(urls: list[str], config: FetchConfig, blocked: Blocked | None, answers: _Answers) -> None:
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
    client: "aiohttp.ClientSession", row: ImageRow, config: FetchConfig, blocked: Blocked | None
) -> Retry[ImageRow] | None:
    """Fetch a URL once and fill in its row; return None if the row is settled, or when to retry."""
    row.attempts, row.http_status = row.attempts + 1, None
    started, image_ids = time.monotonic(), blocked.image_ids if blocked else frozenset[str]()
    try:
        response = await get(client, row.url, config, blocked)
        row.http_status, row.final_url, row.redirects = response.status, response.url, response.redirects
        # A small image is inspected in less time than a switch to a thread and back takes.
        if len(response.body) > _SMALL:
            await asyncio.to_thread(row.describe, response.body, config, image_ids)
        else:
            row.describe(response.body, config, image_ids)
    except RefusedError as refused:
        row.http_status, row.final_url = refused.status or row.http_status, refused.url or row.final_url
        row.redirects = refused.redirects or row.redirects
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
