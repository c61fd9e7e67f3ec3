"""One polite GET: redirects looked at one by one, no more bytes than allowed, opt-outs honoured."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from capsfusion_etl.stages.fetch.config import FetchConfig
from capsfusion_etl.stages.fetch.image import RefusedError
from capsfusion_etl.stages.fetch.ssrf import PublicResolver, parsed

if TYPE_CHECKING:
    import aiohttp

_OPTED_OUT = {"noai", "noimageai"}
_REDIRECTS = (301, 302, 303, 307, 308)


@asynccontextmanager
async def open_client(config: FetchConfig) -> "AsyncIterator[aiohttp.ClientSession]":
    """An HTTP client that speaks to public addresses alone, unless the settings say otherwise."""
    import aiohttp

    open_to_all = config.allow_private or config.proxy is not None
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, resolver=None if open_to_all else PublicResolver())
    async with aiohttp.ClientSession(
        connector=connector, headers={"User-Agent": config.user_agent, "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False, trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as client:  # fmt: skip
        yield client


@dataclass(frozen=True, slots=True)
class Response:
    """The bytes that an address gave, the status, and the address that redirects led to."""

    body: bytes
    status: int
    url: str


async def get(client: "aiohttp.ClientSession", url: str, config: FetchConfig) -> Response:
    """Follow `url` to its bytes, in `timeout_s` at most.

    Raises:
        RefusedError: with the reason of the fetch stage, and with the status and address of the last answer, if any.
    """
    import aiohttp

    status: int | None = None
    answered_by: str | None = None
    try:
        async with asyncio.timeout(config.timeout_s):
            for _ in range(config.max_redirects + 1):
                status = None
                address = parsed(url, private=config.allow_private or config.proxy is not None)
                async with client.get(address, allow_redirects=False, proxy=config.proxy) as response:
                    status, answered_by = response.status, str(response.url)
                    if status not in _REDIRECTS or "Location" not in response.headers:
                        return Response(await _body(response, config), status, answered_by)
                    url = str(response.url.join(type(response.url)(response.headers["Location"])))
        raise RefusedError("http_error", f"more than {config.max_redirects} redirects")
    except RefusedError as refused:
        raise refused.answered(status, answered_by) from None
    except TimeoutError:
        detail = f"no complete answer in {config.timeout_s:g} s"
        raise RefusedError("timeout", detail).answered(status, answered_by) from None
    except aiohttp.InvalidURL as error:
        raise RefusedError("bad_url", str(error)).answered(status, answered_by) from None
    except (aiohttp.ClientError, OSError, UnicodeError, ValueError) as error:
        detail = f"{type(error).__name__}: {error}".strip(": ")[:200]
        raise RefusedError("unreachable", detail).answered(status, answered_by) from None


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
