"""Chat completions over HTTP: retries, and how many requests are in flight.

Retries happen here and not in the SDK, so that the cost of every request is known. The API key comes from the
environment or a file and goes only to the server.
"""

import asyncio
import os
import random
import re
import time
from pathlib import Path
from typing import Any, NoReturn

import openai

from capsfusion_etl.engines.config import EngineConfig
from capsfusion_etl.engines.openai_refusals import cannot_pay, words_of
from capsfusion_etl.errors import InputError, RetryError

RETRIES = 6  # of a request that got status 5xx or lost its connection: about 20 s in all
_NOT_OPENAIS = ("structured_outputs",)  # fields of a request that only other servers know (vLLM)
PAUSE_S = 1.0  # refusals within this time count as one burst, which halves the limit once


class OpenAIClient:
    """Client of the server that `config` names. It serves one event loop at a time."""

    def __init__(self, config: EngineConfig, section: str) -> None:
        self._config, self._section = config, section
        self._key = api_key(config.api_key_file, section)
        self._client: openai.AsyncOpenAI | None = None

    @property
    def where(self) -> str:
        """Name of the server in messages."""
        return self._config.base_url or "the OpenAI API"

    def _open(self) -> openai.AsyncOpenAI:
        if self._client is None:
            self._client = openai.AsyncOpenAI(
                api_key=self._key, base_url=self._config.base_url, timeout=self._config.timeout_s, max_retries=0,
                http_client=openai.DefaultAioHttpClient(),
            )  # fmt: skip
            self._limit = AdaptiveLimit(self._config.concurrency)
        return self._client

    async def close(self) -> None:
        """Close the connections: each Spark task has its own event loop, and loops cannot share them."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def send(self, body: dict[str, Any]) -> Any:
        """Send a request, retry it as needed, and return the parsed JSON of the response.

        Raises:
            InputError: no request can succeed: wrong key, quota, model or URL.
            RetryError: the server is unreachable, or limits the rate (status 429) for longer than `patience_s`.
            openai.APIError: this request failed: it timed out, was refused, or got status 5xx after all retries.
            ValueError: the body of the response is not JSON.
        """
        started, tries = time.monotonic(), 0
        more = {name: value for name, value in body.items() if name in _NOT_OPENAIS}
        known = {name: value for name, value in body.items() if name not in _NOT_OPENAIS}
        while True:
            try:
                client = self._open()
                async with self._limit:
                    reply = await client.chat.completions.with_raw_response.create(**known, extra_body=more)
                await self._limit.answered()
                return reply.http_response.json()  # building the SDK's objects would take most of the time here
            except openai.RateLimitError as error:
                if cannot_pay(error):
                    self._explain(error, body)
                self._limit.refused()
                if time.monotonic() - started > self._config.patience_s:
                    raise RetryError(
                        f"{self.where} keeps refusing requests (status 429: {words_of(error)}): run the same command "
                        "again later"
                    ) from None
                pause = retry_after(error) or 0.5
            except openai.APIConnectionError as error:  # an unreachable server must not settle rows as errors
                never_sent = type(error.__cause__).__name__ == "ConnectTimeout"  # of httpx or httpx2
                if isinstance(error, openai.APITimeoutError) and not never_sent:
                    raise
                if tries >= RETRIES:
                    raise RetryError(
                        f"{self.where} cannot be reached: run the same command again when it is back"
                    ) from None
                pause, tries = retry_after(error) or 0.5 * 2 ** min(tries, 4), tries + 1
            except openai.InternalServerError as error:
                if tries >= RETRIES:
                    raise
                pause, tries = retry_after(error) or 0.5 * 2 ** min(tries, 4), tries + 1
            except openai.APIStatusError as error:
                self._explain(error, body)
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))

    def _explain(self, error: openai.APIStatusError, body: dict[str, Any]) -> NoReturn:
        if cannot_pay(error):
            raise InputError(
                f"{self.where}: the account cannot pay ({words_of(error)}): raise its quota and run the same command "
                "again"
            ) from None
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            raise InputError(
                f"{self.where} refuses the API key ({words_of(error)}): set OPENAI_API_KEY or "
                f"{self._section}.api_key_file"
            ) from None
        if isinstance(error, openai.NotFoundError):
            raise InputError(
                f"{self.where} has no model {body['model']!r}, or no chat completions API at this URL "
                f"({words_of(error)})"
            ) from None
        raise error


class AdaptiveLimit:
    """Limit of requests in flight for one event loop, used as `async with limit`.

    It grows by addition and shrinks by halving (AIMD), as in TCP congestion control.

    Args:
        most: upper end of the limit, with which it starts.
    """

    def __init__(self, most: int) -> None:
        self.most, self.now = most, float(most)
        self._busy, self._halved = 0, -PAUSE_S
        self._room = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self._room:
            await self._room.wait_for(lambda: self._busy < max(1, int(self.now)))
            self._busy += 1

    async def __aexit__(self, *_: object) -> None:
        async with self._room:
            self._busy -= 1
            self._room.notify()

    def refused(self) -> None:
        """Halve the limit after a 429 response, at most once per PAUSE_S."""
        if time.monotonic() - self._halved >= PAUSE_S:
            self.now, self._halved = max(1.0, self.now / 2), time.monotonic()

    async def answered(self) -> None:
        """Raise the limit after a response, by one for as many responses as the limit has slots."""
        if self.now < self.most:
            self.now = min(float(self.most), self.now + 1 / self.now)
            async with self._room:
                self._room.notify()


def retry_after(error: openai.APIError) -> float | None:
    """Return the Retry-After header of the response in seconds, at most 120; None if it has none in seconds."""
    response = getattr(error, "response", None)
    try:
        return min(120.0, float(response.headers["retry-after"])) if response is not None else None
    except (KeyError, ValueError):
        return None


def api_key(path: str | None, section: str) -> str:
    """Return the key in the file `path`, else OPENAI_API_KEY, else `none`, because local servers often need no key.

    Space around the key, such as the line break that `echo` adds, is removed.

    Raises:
        InputError: the file cannot be read or is empty, or the key has characters that no HTTP header can carry.
    """
    origin = "OPENAI_API_KEY" if path is None else f"{section}.api_key_file: {path}"
    try:
        key = os.environ.get("OPENAI_API_KEY", "") if path is None else Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{section}.api_key_file: cannot read {path}: {error}") from None
    key = key.strip()
    if not key and path is not None:
        raise InputError(f"{origin} is empty")
    if not re.fullmatch(r"[!-~]*", key):
        raise InputError(f"{origin} is not one key: it has spaces, line breaks or characters outside of ASCII")
    return key or "none"
