"""One Spark session for all tests that need one; tests that need none start no JVM."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from capsfusion_etl.dev_server import Behaviour
    from capsfusion_etl.runlog import Run
    from pyspark.sql import SparkSession

ROWS = [
    {"url": f"http://a.example/{i}.jpg", "raw_caption": text, "synthetic_caption": seen}
    for i, (text, seen) in enumerate(
        [
            ("Old Harbour Bridge Lisbon 1998 postcard", "A bridge over a body of water."),
            ("Anna Keller reads at the Oslo Book Fair", "A woman reading a book."),
            ("Station clock of Zurich at 08:45", "A clock on a wall."),
            ("Lawn in Kew Gardens, July 2019", "A green lawn."),
            ("Red dahlia, Ghent flower market", "A red flower."),
            ("", "A cat."),
            ("IMG_2041.jpg", "A dog."),
        ]
    )
]


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[SparkSession]":
    """A local session with Delta, as the command line makes it."""
    from capsfusion_etl.session import get_session

    session = get_session(tmp_path_factory.mktemp("spark") / "spark.log")
    yield session
    session.stop()


@pytest.fixture
def run(spark: "SparkSession", tmp_path: Path) -> "Run":
    """A run over a new, empty lake."""
    from capsfusion_etl.lake import Lake
    from capsfusion_etl.runlog import Run

    return Run(Lake.open(spark, str(tmp_path / "lake")))


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    """Seven pairs with synthetic captions, as JSONL; two of them must be filtered."""
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def capsfusion(
    spark: "SparkSession", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command line in this process, on the shared session: exit status, stdout, stderr."""
    import signal

    from capsfusion_etl.cli import main

    def call(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["capsfusion", *map(str, arguments)])
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as exit_:
                main()
        finally:
            signal.signal(signal.SIGTERM, before)
        out = capsys.readouterr()
        code = exit_.value.code
        return (code if isinstance(code, int) else 0), out.out, out.err

    return call


@pytest.fixture
def start() -> "Iterator[Callable[..., tuple[str, Behaviour]]]":
    """Starts dev-servers in threads of their own; gives the base URL and the behaviour, which counts."""
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
