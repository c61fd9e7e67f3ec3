"""Export a snapshot in every format beside a plain copy of the export, and read it back with its own reader.

PYTHONPATH=benchmarks python benchmarks/exports.py FOLDER [--pairs 100000] [--rounds 3] [--streaming FOLDER]

The pictures are random bytes of 20 kB, which no codec makes smaller; they are read, not decoded. `--streaming` is a
folder with MosaicML Streaming (tests/etl/exports/test_formats.py says how to install it). Deletes what it writes.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from capsfusion_etl.exports.config import FORMATS, ExportConfig
from capsfusion_etl.exports.export import export
from capsfusion_etl.lake.create import open_lake
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_etl.snapshots.manifest import GateResult, Manifest, describe_files
from capsfusion_etl.spark.session import get_session
from capsfusion_trainer.data.snapshot import Split
from deltalake import DeltaTable, WriterProperties, write_deltalake

SIZE = 20_000  # bytes of a picture
READERS = {
    "webdataset": "import webdataset as w\n"
    "n = sum(1 for t in files('*.tar') for _ in w.WebDataset(t, shardshuffle=False))",
    "huggingface": "import datasets as d; s = d.load_dataset(folder, streaming=True, split='train')\n"
    "n = sum(1 for _ in s.cast_column('image', d.Image(decode=False)))",
    "llava": "import json; e = json.load(open(folder + '/train.json'))\n"
    "n = sum(1 for x in e if open(f'{folder}/{x[\"image\"]}', 'rb').read())",
    "mds": "from streaming import StreamingDataset as S\n"
    "n = sum(1 for _ in S(local=folder, split='train', batch_size=1))",
    "lance": "import lance; n = sum(len(b.to_pylist()) for b in lance.dataset(folder + '/train.lance').to_batches())",
    "parquet": "import pyarrow.dataset as d\n"
    "n = sum(len(b.to_pylist()) for b in d.dataset(files('train-*.parquet')).to_batches(batch_size=256))",
}
HEAD = "import sys, time, glob\nfolder = sys.argv[1]\nfiles = lambda p: sorted(glob.glob(f'{folder}/{p}'))\n"


def made(folder: Path, pairs: int) -> Manifest:
    """Make a lake whose snapshot `bench` has so many pairs of the split train."""
    lake = folder / "lake"
    if not lake.is_dir():
        open_lake(get_session, str(lake))
        rng = np.random.default_rng(0)
        for start in range(0, pairs, 10_000):
            rows = {
                "pair_id": [f"{i:064x}" for i in range(start, start + 10_000)],
                "image_id": [f"{i:064x}" for i in range(start, start + 10_000)],
                "image": [b"\xff\xd8\xff" + rng.bytes(SIZE - 3) for _ in range(10_000)],
                "caption": [f"Picture {i} of the Oslo Book Fair." for i in range(start, start + 10_000)],
                "caption_from": ["fused"] * 10_000, "strategy": ["fused"] * 10_000, "split": ["train"] * 10_000,
            }  # fmt: skip
            write_deltalake(
                lake / "training_pairs", pa.table(rows), mode="append", partition_by=["strategy", "split"],
                writer_properties=WriterProperties(max_row_group_size=128, write_batch_size=128),
            )  # fmt: skip
        table = DeltaTable(lake / "training_pairs")
        manifest = Manifest(
            "bench", str(lake / "training_pairs"), str(table.metadata().id), table.version(), "fused", pairs,
            tuple(rows), describe_files(str(lake / "training_pairs"), table, "fused"), GateResult(True, 1, (), ""),
        )  # fmt: skip
        path = lake / "_capsfusion" / "snapshots" / "bench.json"
        path.parent.mkdir(parents=True)
        path.write_text(manifest.text())
    return open_snapshot(f"{lake}@bench", hashes=None)


def make(form: str, manifest: Manifest, to: Path) -> None:
    if form in FORMATS:
        exported(manifest, to, form)
    else:
        bare(manifest, to)


def copied(what: Path, to: Path) -> None:
    subprocess.run(["cp", "-r", what, to], check=True)


def bare(manifest: Manifest, to: Path) -> None:
    """Read the pictures from the Parquet files, hash them and write them, and do nothing else."""

    def one(path: str) -> None:
        digest = hashlib.sha256()
        with pq.ParquetFile(path) as parquet, (to / Path(path).name).open("wb", buffering=2**20) as out:
            for group in range(parquet.num_row_groups):
                images = parquet.read_row_group(group, columns=["image"])["image"].combine_chunks().buffers()[2]
                digest.update(images)
                out.write(images)

    to.mkdir()
    with ThreadPoolExecutor() as pool:
        list(pool.map(one, [str(manifest.locate(file)) for file in manifest.files]))


def exported(manifest: Manifest, to: Path, form: str) -> None:
    export(open_lake(get_session, str(manifest.folder.parent)), manifest, str(to), ExportConfig(form), None)


def timed(work: Callable[[], object]) -> float:
    os.sync()
    began = time.perf_counter()
    work()
    os.sync()  # what is not on the disk is not written
    return time.perf_counter() - began


def read_by(form: str, folder: Path, streaming: str | None) -> float:
    """Return the seconds in which the reader of a format reads an export, without the start of Python."""
    end = "\nprint(n, time.perf_counter() - began)"
    program = f"{HEAD}began = time.perf_counter()\n{READERS[form]}{end}"
    environment = {**os.environ, **({"PYTHONPATH": streaming} if form == "mds" and streaming else {})}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, folder],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return float(done.stdout.splitlines()[-1].split()[1])


def ours(manifest: Manifest) -> float:
    def rows() -> Iterator[object]:
        yield from Split(manifest, "train")

    return timed(lambda: sum(1 for _ in rows()))


def main() -> None:
    """Print ratios to the copy, and pairs per second of each reader."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streaming")
    given = parser.parse_args()
    manifest = made(given.folder, given.pairs)
    size, ratios, rates = sum(file.size for file in manifest.files), dict[str, list[float]](), dict[str, list[float]]()
    for _ in range(given.rounds):
        rates.setdefault("our loader", []).append(given.pairs / ours(manifest))
        for form in ("bare loop", *FORMATS):
            to = given.folder / form
            seconds = timed(lambda form=form, to=to: make(form, manifest, to))
            copy = timed(lambda to=to: copied(to, given.folder / "copy"))
            shutil.rmtree(given.folder / "copy")
            ratios.setdefault(form, []).append(copy / seconds)
            print(f"{form}: {size / seconds / 1e6:,.0f} MB/s, copy {size / copy / 1e6:,.0f} MB/s", flush=True)
            if form in FORMATS and (form != "mds" or given.streaming):
                rates.setdefault(form, []).append(given.pairs / read_by(form, to, given.streaming))
                print(f"{form}: {rates[form][-1]:,.0f} pairs/s read", flush=True)
            shutil.rmtree(to)
    for form, found in ratios.items():
        print(f"export {form}: {statistics.median(found):.2f} of the copy ({min(found):.2f} to {max(found):.2f})")
    for form, found in rates.items():
        print(f"read {form}: {statistics.median(found):,.0f} pairs/s ({min(found):,.0f} to {max(found):,.0f})")


if __name__ == "__main__":
    main()
