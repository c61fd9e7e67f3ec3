"""Test the protection against SSRF: only hosts on the public internet are contacted."""

import socket
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from capsfusion_etl.stages.fetch import http as module
from capsfusion_etl.stages.fetch.config import FetchConfig
from capsfusion_etl.stages.fetch.ssrf import PublicResolver, is_public
from capsfusion_etl.stages.fetch.worker import fetch_all
from image_site import fetch


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://a.example/x.jpg", "bad_url"),
        ("no address", "bad_url"),
        ("http://[broken", "bad_url"),
        ("http://a.example:99999/x.jpg", "bad_url"),
        ("", "bad_url"),
        ("http://127.0.0.1:9/x.jpg", "refused_address"),
        ("http://127.1/x.jpg", "bad_url"),
        ("http://a.example:22/x.jpg", "refused_address"),
        ("https://a.example:25/x.jpg", "refused_address"),
        ("http://[2002:7f00:1::]/x.jpg", "refused_address"),
        ("http://2130706433/x.jpg", "bad_url"),
        ("http://0x7f.0.0.1/x.jpg", "refused_address"),
        ("http://[::1]/x.jpg", "refused_address"),
        ("http://[::ffff:10.0.0.1]/x.jpg", "refused_address"),
        ("http://localhost/x.jpg", "refused_address"),
        ("http://169.254.169.254/latest/meta-data", "refused_address"),
    ],
)
def test_addresses_that_are_never_asked(url: str, reason: str) -> None:
    [row] = fetch(url, allow_private=False, retries=0)
    assert row.error == reason


def test_addresses_of_a_site_are_not_public() -> None:
    assert not is_public("fec0::1")


def test_public_addresses() -> None:
    assert all(map(is_public, ("93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "2002:5db8:d822::1")))
    tunnels = (
        "2002:7f00:1::",
        "2002:a01:203::1",
        "2001:0:5db8:d822::f5fe:fdfc",
        "2001:0:7f00:1::a247:27dd",
        "::7f00:1",
    )
    assert not any(map(is_public, tunnels))
    assert not any(
        map(is_public, ("10.1.2.3", "100.64.0.1", "224.0.0.1", "fe80::1%eth0", "64:ff9b::7f00:1", "0.0.0.0"))
    )


class Recorded(AbstractResolver):
    """Resolver that returns a public address at the first call and a private one afterwards."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        address = "93.184.216.34" if len(self.asked) == 1 else "127.0.0.1"
        return [ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


def test_names_that_turn_private_and_redirects_to_metadata(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records every connection and leads it to the test server, which stands for the public internet."""
    import aiohttp
    from aiohttp.connector import TCPConnector

    resolver, connected = Recorded(), []
    port = int(server.rpartition(":")[2])

    async def connect(self: TCPConnector, *arguments: Any, addr_infos: Any, **options: Any) -> Any:
        connected.append(addr_infos[0][4][0])
        local = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        return await real(self, *arguments, addr_infos=local, **options)

    real = TCPConnector._wrap_create_connection
    monkeypatch.setattr(TCPConnector, "_wrap_create_connection", connect)
    monkeypatch.setattr(module, "PublicResolver", lambda: PublicResolver(resolver))
    monkeypatch.setattr(
        aiohttp, "TCPConnector", lambda **o: TCPConnector(**{**o, "ttl_dns_cache": 0, "use_dns_cache": False})
    )
    config = FetchConfig(retries=0, timeout_s=5.0)
    [first] = fetch_all(["http://a.example/to-metadata"], config)
    [second] = fetch_all(["http://a.example/good"], config)
    assert (first.error, first.detail) == ("refused_address", "169.254.169.254 is not on the public internet")
    assert (second.error, second.detail) == ("refused_address", "a.example is 127.0.0.1")
    assert connected == ["93.184.216.34"]
    assert resolver.asked == ["a.example", "a.example"]
