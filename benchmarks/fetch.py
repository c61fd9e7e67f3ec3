r"""Compare our fetch with img2dataset, in images per second and per CPU-second, against one server on the loopback.

5,000 URLs on 50 hosts (127.0.0.*) serve JPEGs of about 20 kB; 5 % of the URLs are dead (connection refused), 5 % slow
(2 s) and 5 % answer 429 to the first request. Both sides retry twice, with a timeout of 10 s, in two processes, and
store the bytes as received (unless --resize is set). `engine` does the work of two Spark tasks in processes that write
Parquet, as img2dataset does; `stage` is the whole stage in a session that has ingested the pairs: queries, workers,
Delta commits. Ours decodes every image to describe it. CPU is the sum over all processes of a side, memory their peak
(proportional set size). The sides run in turn. Install the peer in a separate environment:

    uv venv PEER && uv pip install --python PEER/bin/python img2dataset 'setuptools<81'
    python benchmarks/fetch.py --images 5000 --rounds 3 --peer PEER/bin/python
"""

import argparse
import io
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HOSTS, TRIES = 50, 2


def images() -> list[bytes]:
    """Return 100 JPEGs of noise, about 20 kB each."""
    import numpy as np
    from PIL import Image

    chance, made = np.random.default_rng(0), []
    for _ in range(100):
        noise = Image.fromarray(chance.integers(0, 255, (32, 32, 3), dtype=np.uint8)).resize((256, 256))
        noise.save(out := io.BytesIO(), "JPEG", quality=88)
        made.append(out.getvalue())
    return made


def serve() -> None:
    """Run the server for /ok/N, /slow/N and /429/N; print its port and the mean image size."""
    import asyncio

    from aiohttp import web

    made, asked = images(), set()

    async def answer(request: web.Request) -> web.Response:
        kind, number = request.match_info["kind"], int(request.match_info["n"])
        if kind == "slow":
            await asyncio.sleep(2)
        if kind == "429" and number not in asked:
            asked.add(number)
            return web.Response(status=429)
        return web.Response(body=made[number % len(made)], content_type="image/jpeg")

    async def live() -> None:
        app = web.Application()
        app.router.add_get("/{kind}/{n}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", 0, backlog=4096).start()
        print(runner.addresses[0][1], json.dumps(statistics.mean(map(len, made))), flush=True)
        await asyncio.Event().wait()

    asyncio.run(live())


def addresses(port: int, count: int) -> list[str]:
    """Return the URLs; the dead ones point to port 1."""
    chance = random.Random(0)
    kinds = chance.choices(["dead", "slow", "429", "ok"], [5, 5, 5, 85], k=count)
    hosts = chance.choices(range(1, HOSTS + 1), k=count)
    return [
        f"http://127.0.0.{host}:{1 if kind == 'dead' else port}/{kind}/{i}"
        for i, (kind, host) in enumerate(zip(kinds, hosts, strict=True))
    ]


def stage(urls: list[str], folder: Path, *, resize: int | None) -> int:
    from capsfusion_etl.lake.create import open_lake
    from capsfusion_etl.lake.run import Run
    from capsfusion_etl.spark.session import get_session
    from capsfusion_etl.stages.fetch.config import FetchConfig
    from capsfusion_etl.stages.fetch.stage import fetch
    from capsfusion_etl.stages.ingest.config import SourceConfig
    from capsfusion_etl.stages.ingest.stage import ingest

    (folder / "pairs.csv").write_text("url,raw_caption\n" + "".join(f"{u},Picture {i}\n" for i, u in enumerate(urls)))
    run = Run(open_lake(get_session(folder / "spark.log"), str(folder / "lake")))
    ingest(run, SourceConfig(pairs=str(folder / "pairs.csv")))
    go()
    fetch(run, FetchConfig(allow_private=True, retries=TRIES, resize=resize))
    done()
    return run.lake.read("images").where("error IS NULL").count()


def share(urls: list[str], file: Path, resize: int | None) -> int:
    """Do the work of a Spark task without Spark: fetch `urls` and write Parquet; return the number of images."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from capsfusion_etl.stages.fetch.config import FetchConfig
    from capsfusion_etl.stages.fetch.worker import fetch_batches
    from capsfusion_etl.tables import IMAGES
    from capsfusion_etl.tables.arrow import arrow_schema

    found = 0
    with pq.ParquetWriter(file, arrow_schema(IMAGES)) as writer:
        config = FetchConfig(allow_private=True, retries=TRIES, resize=resize)
        for batch in fetch_batches(iter([pa.RecordBatch.from_pydict({"url": urls})]), config, "run"):
            writer.write_batch(batch)
            found += len(batch) - batch.column("image_id").null_count
    return found


def engine(urls: list[str], folder: Path, *, resize: int | None) -> int:
    from concurrent.futures import ProcessPoolExecutor

    go()
    halves = [[url for url in urls if hash(url.split(":")[1]) % 2 == half] for half in range(2)]
    with ProcessPoolExecutor(2) as pool:
        found = sum(pool.map(share, halves, [folder / "0.parquet", folder / "1.parquet"], [resize] * 2))
        done()
    return found


def img2dataset(urls: list[str], folder: Path, *, resize: int | None) -> int:
    import pandas as pd
    from img2dataset import download

    pd.DataFrame({"url": urls, "caption": [f"Picture {i}" for i in range(len(urls))]}).to_parquet(
        folder / "urls.parquet"
    )
    how: dict[str, Any] = {"resize_mode": "no", "disable_all_reencoding": True}
    if resize:
        how = {"resize_mode": "keep_ratio_largest", "image_size": resize, "resize_only_if_bigger": True}
    go()
    download(
        url_list=str(folder / "urls.parquet"), input_format="parquet", url_col="url", caption_col="caption",
        output_format="parquet", output_folder=str(folder / "out"), processes_count=2, thread_count=128, retries=TRIES,
        timeout=10, number_sample_per_shard=len(urls) // 2, disallowed_header_directives=["noai", "noimageai"],
        enable_wandb=False, **how,
    )  # fmt: skip
    done()
    return sum(json.loads(p.read_text())["successes"] for p in (folder / "out").glob("*_stats.json"))


_began: dict[str, float] = {}


def _cpu() -> float:
    import psutil

    me = psutil.Process()
    times = [p.cpu_times() for p in [me, *me.children(recursive=True)]]
    return sum(t.user + t.system + t.children_user + t.children_system for t in times)


def _memory(peak: list[int], stop: threading.Event) -> None:
    import psutil

    while not stop.wait(0.3):
        found = 0
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            try:
                found += process.memory_full_info().pss
            except psutil.Error:
                continue
        peak[0] = max(peak[0], found)


def go() -> None:
    _began.update(wall=time.perf_counter(), cpu=_cpu())


def done() -> None:
    """Replace the start times by the wall and CPU seconds since `go`."""
    _began.update(wall=time.perf_counter() - _began["wall"], cpu=_cpu() - _began["cpu"])


def one(side: str, port: int, images: int, resize: int | None) -> None:
    """Run a side in this process; print images, seconds, CPU seconds and peak memory as JSON."""
    peak, stop = [0], threading.Event()
    watch = threading.Thread(target=_memory, args=(peak, stop))
    watch.start()
    with tempfile.TemporaryDirectory() as folder:
        found = {"stage": stage, "engine": engine, "img2dataset": img2dataset}[side](
            addresses(port, images), Path(folder), resize=resize
        )
    stop.set()
    watch.join()
    told = {"images": found, "seconds": _began["wall"], "cpu": _began["cpu"], "gib": peak[0] / 2**30}
    print("RESULT", json.dumps(told), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--resize", type=int)
    parser.add_argument("--peer", help="Python interpreter of the environment with img2dataset")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--sides", default="engine,stage,img2dataset")
    parser.add_argument("--side")
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    if given.serve:
        serve()
        return
    if given.side:
        one(given.side, given.port, given.images, given.resize)
        return
    results: dict[str, list[dict[str, float]]] = {"engine": [], "stage": [], "img2dataset": []}
    for _ in range(given.rounds):
        for side, python in [(s, given.peer if s == "img2dataset" else sys.executable) for s in given.sides.split(",")]:
            if python is None:
                continue
            server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
            assert server.stdout is not None
            port = server.stdout.readline().split()[0]
            more = ["--resize", str(given.resize)] if given.resize else []
            try:
                told = subprocess.run(
                    [python, __file__, "--side", side, "--port", port, "--images", str(given.images), *more],
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
                ).stdout  # fmt: skip
            finally:
                server.kill()
                server.wait()
            found = json.loads(next(line for line in told.splitlines() if line.startswith("RESULT"))[7:])
            rates = {"per_s": found["images"] / found["seconds"], "per_cpu_s": found["images"] / found["cpu"]}
            results[side].append(found | rates)
            print(side, json.dumps({k: round(v, 2) for k, v in results[side][-1].items()}), flush=True)
    for side, rate in [(side, rate) for side in ("engine", "stage") for rate in ("per_s", "per_cpu_s")]:
        ratios = [a[rate] / b[rate] for a, b in zip(results[side], results["img2dataset"], strict=False)]
        if ratios:
            print(
                side, rate, f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of img2dataset"
            )


if __name__ == "__main__":
    main()
