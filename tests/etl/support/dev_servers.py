"""Fixture that starts dev servers for tests."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from capsfusion_etl.dev_server import Behaviour


@pytest.fixture(scope="session")
def start() -> "Iterator[Callable[..., tuple[str, Behaviour]]]":
    """Function that starts a dev server in a thread: base URL, and its Behaviour, which counts the requests."""
    from aiohttp import web
    from capsfusion_etl.dev_server import Behaviour, application

    stops: list[Callable[[], None]] = []

    def run(**behaviour: Any) -> tuple[str, Behaviour]:
        chosen, ready, loop = Behaviour(**behaviour), threading.Event(), asyncio.new_event_loop()
        address: list[str] = []

        async def serve() -> web.AppRunner:
            runner = web.AppRunner(application(chosen), shutdown_timeout=0)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            address.append(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
            return runner

        def live() -> None:
            runner = loop.run_until_complete(serve())
            ready.set()
            loop.run_forever()
            loop.run_until_complete(runner.cleanup())
            loop.close()

        thread = threading.Thread(target=live)
        thread.start()
        ready.wait(10)
        stops.append(lambda: (loop.call_soon_threadsafe(loop.stop), thread.join())[1])
        return address[0], chosen

    yield run
    for stop in stops:
        stop()
