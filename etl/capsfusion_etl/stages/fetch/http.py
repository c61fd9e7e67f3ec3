"""HTTP GET for images: checks every redirect, limits the bytes and honours opt-outs."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING

import brotli

from capsfusion_etl.lake.blocklist import Blocked
from capsfusion_etl.stages.fetch.config import FetchConfig
from capsfusion_etl.stages.fetch.image import RefusedError
from capsfusion_etl.stages.fetch.ssrf import PublicResolver, parsed

if TYPE_CHECKING:
    import aiohttp

_OPTED_OUT = {"noai", "noimageai"}
_PLAIN = ("identity", "", "none", "binary", "utf-8")  # the last ones are mistakes of servers: nothing is compressed
_DEFLATE = ("gzip", "x-gzip", "deflate")
_REDIRECTS = (301, 302, 303, 307, 308)


@asynccontextmanager
async def open_client(config: FetchConfig) -> "AsyncIterator[aiohttp.ClientSession]":
    """Open an HTTP client that connects only to public IP addresses.

    With `allow_private` or a `proxy` the client connects to any address.
    """
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
    """Body and status of a successful response, the URL after redirects, and the URLs that redirected, in order."""

    body: bytes
    status: int
    url: str
    redirects: list[str]


async def get(
    client: "aiohttp.ClientSession", url: str, config: FetchConfig, blocked: Blocked | None = None
) -> Response:
    """Download `url`, following redirects, within `timeout_s`.

    Args:
        client: see `open_client`.
        url: URL of the image.
        config: limits.
        blocked: takedown requests; no redirect to a URL that they name is followed.

    Raises:
        RefusedError: the download failed; it carries a reject reason of the fetch stage, and the status and URL of the
            last response, if any.
    """
    import aiohttp

    status: int | None = None
    answered_by: str | None = None
    redirects: list[str] = []
    try:
        async with asyncio.timeout(config.timeout_s):
            for _ in range(config.max_redirects + 1):
                status = None
                address = parsed(url, private=config.allow_private or config.proxy is not None)
                async with client.get(address, allow_redirects=False, proxy=config.proxy) as response:
                    status, answered_by = response.status, str(response.url)
                    if status not in _REDIRECTS or "Location" not in response.headers:
                        return Response(await _body(response, config), status, answered_by, redirects)
                    redirects.append(answered_by)
                    url = str(response.url.join(type(response.url)(response.headers["Location"])))
                    if blocked is not None and (kind := blocked.kind_of(url)):
                        raise RefusedError("taken_down", f"a redirect leads to a {kind} that was taken down")
        raise RefusedError("http_error", f"more than {config.max_redirects} redirects")
    except RefusedError as refused:
        raise refused.answered(status, answered_by, redirects) from None
    except TimeoutError:
        detail = f"no complete response within {config.timeout_s:g} s"
        raise RefusedError("timeout", detail).answered(status, answered_by, redirects) from None
    except aiohttp.InvalidURL as error:
        raise RefusedError("bad_url", str(error)).answered(status, answered_by, redirects) from None
    except (aiohttp.ClientError, OSError, UnicodeError, ValueError) as error:
        detail = f"{type(error).__name__}: {error}".strip(": ")[:200]
        raise RefusedError("unreachable", detail).answered(status, answered_by, redirects) from None


async def _body(response: "aiohttp.ClientResponse", config: FetchConfig) -> bytes:
    if response.status != 200:
        raise RefusedError("http_error", f"HTTP {response.status}", retry_after_s=_retry_after(response))
    for rule in response.headers.getall("X-Robots-Tag", []) if config.robots else ():
        if _opted_out(rule, config.user_agent):
            raise RefusedError("opted_out", f"X-Robots-Tag: {rule[:100]}")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in (*_PLAIN, *_DEFLATE, "br"):
        raise RefusedError("not_an_image", f"Content-Encoding {encoding[:40]} was not requested")
    if (response.content_length or 0) > config.max_bytes:
        raise RefusedError("too_large", f"{response.content_length} bytes")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > config.max_bytes:
            raise RefusedError("too_large", f"more than {config.max_bytes} bytes")
    return bytes(body) if encoding in _PLAIN else _unpacked(bytes(body), encoding, config.max_bytes)


def _unpacked(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Unpack a body that the server compressed although nobody asked for it, up to `max_bytes`."""
    # With a header of gzip or zlib, or without.
    kinds = [partial(_inflated, bits=bits) for bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS)]
    for unpack in [_unbrotlied] if encoding == "br" else kinds:
        try:
            data = unpack(body, max_bytes + 1)
        except (zlib.error, brotli.error):
            continue
        if len(data) > max_bytes:
            raise RefusedError("too_large", f"more than {max_bytes} bytes, compressed to {len(body)}")
        return data
    raise RefusedError("not_an_image", "the compressed response cannot be unpacked")


def _inflated(body: bytes, most: int, bits: int) -> bytes:
    return zlib.decompressobj(bits).decompress(body, most)


def _unbrotlied(body: bytes, most: int) -> bytes:
    unpacker = brotli.Decompressor()
    data: bytes = unpacker.process(body, output_buffer_limit=most)
    while len(data) < most and not unpacker.is_finished():
        more = unpacker.process(b"", output_buffer_limit=most)
        if not more:
            raise brotli.error("the stream is cut")
        data += more
    return data


def _opted_out(rule: str, user_agent: str) -> bool:
    """Return whether an X-Robots-Tag rule, for all agents or for ours by name, forbids training (noai, noimageai)."""
    agent, colon, rest = rule.partition(":")
    if colon and agent.strip().lower() not in _OPTED_OUT:
        if agent.strip().lower() != " ".join(user_agent.split("/")[0].split()[:1]).lower():
            return False
        rule = rest
    return bool(_OPTED_OUT & {word.strip().lower() for word in rule.split(",")})


def _retry_after(response: "aiohttp.ClientResponse") -> float | None:
    """Return the Retry-After header in seconds, given as seconds or as a date; None if absent or invalid."""
    told = response.headers.get("Retry-After", "")
    if told.isdigit():
        return float(told)
    try:
        return max(0.0, (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
