"""Which addresses may be asked: http and https, and hosts of the public internet alone (server-side request forgery).

What is checked is what is connected to: the resolver refuses, so that a name cannot resolve to another address between
the check and the connection. Numbers that only the system understands as an address (127.1, 2130706433) are refused.
"""

import ipaddress
import socket
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from capsfusion_etl.stages.fetch.image import RefusedError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # IPv4 addresses within IPv6 ones


def parsed(url: str, *, private: bool) -> URL:
    """`url`, if it may be asked as far as it can be told without resolving its host.

    Raises:
        RefusedError: bad_url or refused_address.
    """
    try:
        address = URL(url)
        host, _ = address.host, address.port
    except ValueError as error:
        raise RefusedError("bad_url", str(error)) from None
    if address.scheme not in ("http", "https") or not host:
        raise RefusedError("bad_url", "no http or https address")
    if host.replace(".", "").isdigit() or ":" in host:  # what aiohttp connects to without asking a resolver
        if not is_address(host):
            raise RefusedError("bad_url", f"{host} is no address")
        if not private and not is_public(host):
            raise RefusedError("refused_address", f"{host} is not on the public internet")
    return address


def is_address(host: str) -> bool:
    """Is it written as an IPv4 or IPv6 address?"""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_public(host: str) -> bool:
    """Is this IP address one of the public internet?"""
    found = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)))
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped))
    return found.is_global and not found.is_multicast


class PublicResolver(AbstractResolver):
    """Names to addresses, by the system; a name with an address that is not public is refused.

    Raises:
        RefusedError: refused_address.
    """

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self._resolver = resolver or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """As aiohttp's resolvers."""
        found = await self._resolver.resolve(host, port, family)
        for address in found:
            if not is_public(address["host"]):
                raise RefusedError("refused_address", f"{host} is {address['host']}")
        return found

    async def close(self) -> Any:
        """As aiohttp's resolvers."""
        await self._resolver.close()
