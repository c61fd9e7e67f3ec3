r"""Compare the trainer's loader with deltatorch and mosaicml-streaming on the same JPEGs, in samples per second.

Each side reads, decodes with the same function and makes batches with the same number of workers; the sides run in
turn. The rate counts from the first batch on; the time to the first batch and the peak memory of all processes are
printed, too. The peers need older libraries, so install them in a separate environment and pass its Python:

    uv venv PEERS && uv pip install --python PEERS/bin/python mosaicml-streaming deltatorch 'deltalake<0.20' \
        torch==2.13.0 torchvision pyarrow pandas simplejpeg pillow
    python benchmarks/loader.py --rows 20000 --rounds 3 --peers PEERS/bin/python

With `--resume` it measures only the time to the first batch at step 10 and at step 1,000,000 of a manifest of 102
million rows, whose files are symbolic links to one file.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BATCH, SIZE = 256, 224


def make(folder: Path, rows: int) -> None:
    """Write a Delta table of `rows` JPEGs, a snapshot's manifest, and about.json with the mean size of an image."""
    import numpy as np
    import pyarrow as pa
    from capsfusion_etl.snapshots.manifest import GateResult, Manifest, describe_files
    from deltalake import DeltaTable, WriterProperties, write_deltalake
    from PIL import Image

    chance = np.random.default_rng(0)
    images = []
    for _ in range(200):  # 320 x 320, about 33 kB
        noise = Image.fromarray(chance.integers(0, 255, (40, 40, 3), dtype=np.uint8)).resize((320, 320))
        out = io.BytesIO()
        noise.save(out, "JPEG", quality=90)
        images.append(out.getvalue())
    table = folder / "table"
    for start in range(0, rows, 5000):
        part = [
            {"pair_id": f"{i:064x}", "id": i, "image": images[i % 200], "caption": f"Picture {i} of the fair.",
             "strategy": "fused", "split": "train"}
            for i in range(start, min(rows, start + 5000))
        ]  # fmt: skip
        write_deltalake(
            table, pa.Table.from_pylist(part), mode="append", partition_by=["strategy", "split"],
            writer_properties=WriterProperties(max_row_group_size=128, write_batch_size=128, compression="SNAPPY"),
        )  # fmt: skip
    delta = DeltaTable(table)
    files = describe_files(str(table), delta, "fused")
    gate = GateResult(True, 1, (), "")
    manifest = Manifest("s1", str(table), str(delta.metadata().id), delta.version(), "fused", rows, (), files, gate)
    (folder / "manifest.json").write_text(manifest.text())
    (folder / "about.json").write_text(json.dumps({"rows": rows, "bytes": statistics.mean(map(len, images))}))


class Bytes:
    """A tokenizer of negligible cost, because the peers do not tokenize."""

    eos_token_id = 0

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [list(text.encode()) for text in texts]}


def ours(folder: Path, workers: int) -> Iterator[int]:
    """Yield the number of rows of each batch of the trainer's loader."""
    from capsfusion_etl.snapshots.manifest import Manifest
    from capsfusion_trainer.data.batch import Encoding
    from capsfusion_trainer.data.loader import Loading, batches
    from capsfusion_trainer.data.snapshot import Split

    split = Split(Manifest.parse((folder / "manifest.json").read_text()), "train")
    steps = range(-(-split.rows // BATCH))
    loading = Loading(seed=0, batch=BATCH, lanes=256, workers=workers)
    for batch in batches(split, Encoding(SIZE, 64, Bytes()), steps, loading):
        yield len(batch)


def decoded(data: bytes) -> Any:
    from capsfusion_trainer.data.image import decode

    return decode(data, SIZE)


def deltatorch(folder: Path, workers: int) -> Iterator[int]:
    """Yield the rows per batch of deltatorch; its delta-rs does not survive a fork, so workers are spawned."""
    import torch
    from deltatorch import FieldSpec, create_pytorch_dataloader

    torch.multiprocessing.set_start_method("spawn")
    fields = [FieldSpec("image", transform=decoded), FieldSpec("caption")]
    loader = create_pytorch_dataloader(
        str(folder / "table"), id_field="id", fields=fields, shuffle=True, batch_size=BATCH, num_workers=workers
    )
    for batch in loader:
        yield len(batch["caption"])


def streaming(folder: Path, workers: int) -> Iterator[int]:
    """Yield the rows per batch of mosaicml-streaming; the first call converts the table to MDS."""
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    place = folder / "mds"
    if not place.is_dir():
        import deltalake

        rows = deltalake.DeltaTable(str(folder / "table")).to_pyarrow_table(columns=["image", "caption"])
        with MDSWriter(out=str(place), columns={"image": "bytes", "caption": "str"}) as writer:
            for row in rows.to_pylist():
                writer.write(row)

    class Decoded(StreamingDataset):
        def __getitem__(self, at: int) -> Any:
            row = super().__getitem__(at)
            return {"image": decoded(row["image"]), "caption": row["caption"]}

    data = Decoded(local=str(place), shuffle=True, batch_size=BATCH, shuffle_seed=0)
    for batch in DataLoader(data, batch_size=BATCH, num_workers=workers):
        yield len(batch["caption"])


SIDES: dict[str, Callable[[Path, int], Iterator[int]]] = {
    "ours": ours, "deltatorch": deltatorch, "streaming": streaming
}  # fmt: skip


def one(side: str, folder: Path, workers: int, at_most: int) -> None:
    """Run a side in this process; print samples/s after the first batch, seconds to it and peak memory as JSON."""
    started = time.perf_counter()
    loaded = SIDES[side](folder, workers)
    next(loaded)
    first, seen, peak = time.perf_counter(), 0, 0.0
    for rows in loaded:
        seen += rows
        peak = max(peak, sum(memory(pid) for pid in [os.getpid(), *children()]))
        if seen >= at_most:
            break
    rate = seen / (time.perf_counter() - first)
    print(json.dumps({"rate": rate, "first": first - started, "mib": peak / 1024}), flush=True)
    os._exit(0)  # ends the workers of a loader that was stopped early


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def memory(pid: int) -> int:
    """Return the proportional set size of a process in KiB, 0 if it has exited."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just exited
        return 0
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1])


def resume(folder: Path, rounds: int) -> None:
    """Print the seconds to the first batch of a resumed run, early and late in a large manifest."""
    from dataclasses import replace

    from capsfusion_etl.snapshots.manifest import Manifest
    from capsfusion_trainer.data.batch import Encoding
    from capsfusion_trainer.data.loader import Loading, batches
    from capsfusion_trainer.data.snapshot import Split

    manifest = Manifest.parse((folder / "manifest.json").read_text())
    first = manifest.files[0]
    many = []
    for i in range(102_400_000 // first.rows):
        path = folder / "table" / f"many/{i}.parquet"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.symlink_to(folder / "table" / first.path)
        many.append(replace(first, path=f"many/{i}.parquet"))
    split = Split(replace(manifest, files=tuple(many)), "train")
    seconds: dict[int, list[float]] = {10: [], 1_000_000: []}
    for round_ in range(rounds + 1):
        for step, taken in seconds.items():
            started = time.perf_counter()
            steps = range(step, step + 1)
            next(batches(split, Encoding(SIZE, 64, Bytes()), steps, Loading(seed=0, batch=BATCH, lanes=256)))
            if round_:
                taken.append(time.perf_counter() - started)
    ratios = sorted(late / early for early, late in zip(*seconds.values(), strict=True))
    for step, taken in seconds.items():
        print(f"step {step:,}: {statistics.median(taken):.2f} s to the first batch of {split.rows:,} rows")
    print(f"late to early {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, {rounds} rounds)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--at-most", type=int, default=10_000, help="rows per side and round")
    parser.add_argument("--peers", help="Python interpreter of the peers' environment")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        one(options.side, options.folder, options.workers, options.at_most)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, options.rows)
        if options.resume:
            resume(folder, options.rounds)
            return
        print((folder / "about.json").read_text(), flush=True)
        sides = ["ours", "deltatorch", "streaming"] if options.peers else ["ours"]
        rates: dict[str, list[float]] = {side: [] for side in sides}
        said: dict[str, dict[str, float]] = {}
        paths = [str(Path(__file__).parents[1] / p) for p in ("etl", "trainer")]
        for _ in range(options.rounds):
            for side in sides:
                python = sys.executable if side == "ours" else options.peers
                command = [python, __file__, "--side", side, "--folder", name, "--workers", str(options.workers)]
                out = subprocess.run(
                    [*command, "--at-most", str(options.at_most)], stdout=subprocess.PIPE, text=True, check=True,
                    env=os.environ | {"PYTHONPATH": ":".join(paths)},
                )  # fmt: skip
                said[side] = json.loads(out.stdout.splitlines()[-1])
                rates[side].append(said[side]["rate"])
        for side, found in rates.items():
            ratios = sorted(mine / other for mine, other in zip(rates["ours"], found, strict=True))
            spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, {options.rounds} rounds)"
            about = f"{said[side]['first']:.1f} s to the first batch, {said[side]['mib']:.0f} MiB"
            print(f"{side}: {statistics.median(found):.0f} samples/s, {about}; ours to it {spread}", flush=True)


if __name__ == "__main__":
    main()
