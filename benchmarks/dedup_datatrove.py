r"""Deduplicate the captions of `dedup.py` with datatrove's MinHash, for comparison: time and recall.

Needs an environment of its own (`pip install 'datatrove[processing]' orjson spacy`); two tasks at a time. Shingles are
word bigrams, because the captions have 8 to 20 words; 14 buckets of 8 hashes are datatrove's default.

    python benchmarks/dedup_datatrove.py --size 1000000
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import HashConfig

sys.path.insert(0, str(Path(__file__).parent))
from dedup import write

TASKS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=2, help="Words of a shingle.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "all.jsonl"), given.size)
        _divide(Path(folder, "all.jsonl"), Path(folder, "pairs"))
        started = time.perf_counter()
        _deduplicate(folder, given.words)
        seconds = time.perf_counter() - started
        removed = [json.loads(line) for path in Path(folder, "removed").glob("*") for line in path.open()]
        left = [json.loads(line) for path in Path(folder, "kept").glob("*") for line in path.open()]
        kept = [row["id"].rpartition("/")[2].split("-") for row in left]  # the URL ends in ORIGIN-o, or ORIGIN-cNUMBER
        both = {origin for origin, kind in kept if kind != "o"} & {origin for origin, kind in kept if kind == "o"}
        planted = given.size - given.size * 9 // 10
        told = {"rows": given.size, "seconds": round(seconds, 1), "removed": len(removed), "planted": planted}
        print("RESULT", json.dumps(told | {"originals_kept_beside_a_copy": len(both)}))


def _divide(source: Path, folder: Path) -> None:
    """Write the rows to one file for each task."""
    folder.mkdir()
    lines = source.read_text().splitlines(keepends=True)
    for task in range(TASKS):
        (folder / f"{task}.jsonl").write_text("".join(lines[task::TASKS]))


def _deduplicate(folder: str, words: int) -> None:
    config = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8, n_grams=words)
    reader = JsonlReader(f"{folder}/pairs", text_key="raw_caption", id_key="url")
    stages = [
        (TASKS, [reader, MinhashDedupSignature(output_folder=f"{folder}/signatures", config=config)]),
        (14, [MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)]),
        (1, [MinhashDedupCluster(f"{folder}/buckets", f"{folder}/removable", config=config)]),
        (TASKS, [
            reader,
            MinhashDedupFilter(f"{folder}/removable", JsonlWriter(f"{folder}/removed", compression=None)),
            JsonlWriter(f"{folder}/kept", compression=None),
        ]),
    ]  # fmt: skip
    for number, (tasks, pipeline) in enumerate(stages):
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=2, logging_dir=f"{folder}/logs/{number}").run()


if __name__ == "__main__":
    main()
