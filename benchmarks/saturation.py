"""Measure whether the fuser `openai` keeps a server as busy as a bare client does.

The server is `capsfusion dev-server` in a separate process, with a fixed latency per response. The bare client sends
the same requests through the same SDK with a semaphore, over the SDK's default transport or aiohttp, and discards the
responses. The fuser parses and judges the responses and, with a journal, records every request and response. The sides
run in turn; medians and ratios are printed, with their spread.

    python benchmarks/saturation.py [--requests 3000] [--in-flight 64] [--latency-ms 100]
"""

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
from capsfusion_etl.budget.metered import Allowance, MeteredEngine
from capsfusion_etl.engines import FuserConfig, Question
from capsfusion_etl.engines.openai import OpenAIFuser
from capsfusion_etl.stages.fuse.attempts import settle

sys.path.insert(0, str(Path(__file__).parent))
import nocost


def bare(config: FuserConfig, questions: list[Question], http: Callable[[], Any]) -> int:
    """Send the fuser's requests without reading the responses; return how many had a choice."""
    bodies = [OpenAIFuser(config).request(q) for q in questions]

    async def all_of_them() -> int:
        async with openai.AsyncOpenAI(
            api_key="none", base_url=config.base_url, max_retries=0, http_client=http()
        ) as client:
            room = asyncio.Semaphore(config.concurrency)

            async def one(body: dict[str, object]) -> bool:
                async with room:
                    reply = await client.chat.completions.create(**body)  # type: ignore[call-overload]
                    return bool(reply.choices)

            return sum(await asyncio.gather(*(one(body) for body in bodies)))

    return asyncio.run(all_of_them())


def ours(config: FuserConfig, questions: list[Question], allowance: Allowance | None) -> int:
    """Send the requests with the fuser, journalled if there is an allowance; return how many answers were accepted."""
    fuser = OpenAIFuser(config)
    engine = MeteredEngine(fuser, allowance) if allowance is not None else fuser
    return sum(s.judgement.verdict == "accepted" for s in settle(engine, questions, config))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--latency-ms", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with serving(options.latency_ms) as url:
        compare(url, options)


@contextmanager
def serving(latency_ms: int) -> Iterator[str]:
    """Start a dev-server in a separate process; yield its base URL once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "capsfusion"), "dev-server"]
    server = subprocess.Popen([*command, "--port", str(port), "--latency-ms", str(latency_ms)])
    url = f"http://127.0.0.1:{port}/v1"
    try:
        wait_for(url)
        yield url
    finally:
        server.terminate()
        server.wait()


def wait_for(url: str) -> None:
    """Wait until a server answers at `url`, at most 20 s."""
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{url}/models").close()
            break
        except urllib.error.HTTPError:
            break  # an error status is an answer, too
        except OSError:
            time.sleep(0.2)


def compare(url: str, options: argparse.Namespace) -> None:
    config = FuserConfig(name="openai", model="m", base_url=url, concurrency=options.in_flight, retries=0)
    questions = [Question(f"{i:064x}", raw, seen) for i, (_, raw, seen) in enumerate(nocost.rows(options.requests))]
    with tempfile.TemporaryDirectory() as folder:
        sides: dict[str, Callable[[int], int]] = {
            "bare client": lambda _: bare(config, questions, openai.DefaultAsyncHttpxClient),
            "bare client, aiohttp": lambda _: bare(config, questions, openai.DefaultAioHttpClient),
            "fuser": lambda _: ours(config, questions, None),
            "fuser with journal": lambda n: ours(config, questions, Allowance(f"{folder}/{n}")),
        }
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for n in range(options.rounds + 1):
            for side, go in sides.items():
                started = time.perf_counter()
                assert go(n) == options.requests
                if n:  # the first round warms up
                    seconds[side].append(time.perf_counter() - started)
    for side, mine in seconds.items():
        ratios = sorted(b / m for b, m in zip(seconds["bare client"], mine, strict=True))
        rate = options.requests / statistics.median(mine)
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, {options.rounds} rounds)"
        print(f"{side}: {rate:,.0f} requests/s, ratio to the bare client {spread}")


if __name__ == "__main__":
    main()
