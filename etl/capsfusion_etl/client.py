"""One polite GET: redirects looked at one by one, no more bytes than allowed, opt-outs honoured."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from capsfusion_etl.addresses import PublicResolver, RefusedError, parsed
from capsfusion_etl.fetched import FetchConfig, Fetched

if TYPE_CHECKING:
    import aiohttp

_OPTED_OUT = {"noai", "noimageai"}


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


async def get(client: "aiohttp.ClientSession", row: Fetched, config: FetchConfig) -> bytes:
    """The bytes at `row.url`; status and final URL are noted in the row also where there are none.

    Raises:
        RefusedError: with the reason of the fetch stage.
    """
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
            raise too_slow(config) from None
        except aiohttp.InvalidURL as error:
            raise RefusedError("bad_url", str(error)) from None
        except (aiohttp.ClientError, OSError, UnicodeError, ValueError) as error:
            raise RefusedError("unreachable", f"{type(error).__name__}: {error}".strip(": ")[:200]) from None
    raise RefusedError("http_error", f"more than {config.max_redirects} redirects")


def too_slow(config: FetchConfig) -> RefusedError:
    """The reason of an answer that took too long."""
    return RefusedError("timeout", f"no complete answer in {config.timeout_s:g} s")


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
