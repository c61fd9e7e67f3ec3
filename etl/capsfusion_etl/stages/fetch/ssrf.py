"""Protection against server-side request forgery: only http and https URLs, only hosts on the public internet.

The resolver itself refuses private addresses, so a name cannot resolve to another address between the check and the
connection. Shorthand numbers that only the operating system reads as an address (127.1, 2130706433) are refused.
"""

import ipaddress
import socket
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from capsfusion_etl.stages.fetch.image import RefusedError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # embeds IPv4 addresses (RFC 6052)
# "Bad ports" of the Fetch standard, which browsers refuse, too: mail, SSH and other services that a request can reach.
_BAD_PORTS = {
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530,
    531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190,
    5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
}  # fmt: skip


def parsed(url: str, *, private: bool) -> URL:
    """Parse `url` and check all that can be checked without resolving its host.

    Args:
        private: whether IP addresses that are not public are allowed.

    Raises:
        RefusedError: bad_url or refused_address.
    """
    try:
        address = URL(url)
        host, port = address.host, address.port
    except ValueError as error:
        raise RefusedError("bad_url", str(error)) from None
    if address.scheme not in ("http", "https") or not host:
        raise RefusedError("bad_url", "not an http or https URL")
    if port in _BAD_PORTS:
        raise RefusedError("refused_address", f"port {port} is not for web servers")
    if host.replace(".", "").isdigit() or ":" in host:  # aiohttp connects to these without a resolver
        if not is_address(host):
            raise RefusedError("bad_url", f"{host} is not a valid IP address")
        if not private and not is_public(host):
            raise RefusedError("refused_address", f"{host} is not on the public internet")
    return address


def is_address(host: str) -> bool:
    """Return whether `host` is written as an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_public(host: str) -> bool:
    """Return whether the IP address `host` is on the public internet."""
    found = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        embedded = [found.ipv4_mapped, found.sixtofour, *(found.teredo or ())]
        if found in _NAT64:
            embedded.append(ipaddress.IPv4Address(int(found) & 0xFFFFFFFF))
        if inner := [address for address in embedded if address is not None]:
            return all(is_public(str(address)) for address in inner)
        if found.is_site_local:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


class PublicResolver(AbstractResolver):
    """Resolver for aiohttp that refuses names with any address that is not public.

    Args:
        resolver: resolves the names; by default the operating system.
    """

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self._resolver = resolver or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve `host`, as aiohttp's resolvers do.

        Raises:
            RefusedError: refused_address.
        """
        found = await self._resolver.resolve(host, port, family)
        for address in found:
            if not is_public(address["host"]):
                raise RefusedError("refused_address", f"{host} is {address['host']}")
        return found

    async def close(self) -> Any:
        """Close the underlying resolver."""
        await self._resolver.close()
