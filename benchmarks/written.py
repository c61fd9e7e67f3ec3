"""Make the triplets that taught the shipped adapter: fusions written by reading rows, and the project's own triplets.

`fusions.jsonl` has the written captions and the pair_ids of their sources; the sources are not part of this project, so
they come from a file in the layout of CapsFusion-120M. A rewritten raw caption gets the synthetic caption of the prompt
rewrite-compact-v1. Captions that decoding could not say (see engines/generation/vocabulary.py) are left out.

    python benchmarks/written.py --triplets triplets.parquet --out written.parquet
    capsfusion refine --triplets written.parquet --out refined --set adapter=smollm2-refine-v2
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from capsfusion_etl.engines.generation.vocabulary import sayable
from capsfusion_etl.judge.lexicon import free_words
from capsfusion_trainer.refine.triplets import Triplet, read_triplets

HERE = Path(__file__).parent
OWN = HERE.parent / "examples" / "refine" / "triplets.jsonl"
NOTHING_SEEN = "A photo."


def written(triplets: str) -> Iterator[Triplet]:
    """Yield the written triplets whose sources are in the file `triplets`, and the project's own."""
    sources = {t.pair_id: t for t in read_triplets(triplets)}
    for line in (HERE / "fusions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        source = sources.get(row["pair_id"])
        if source is not None:
            seen = source.synthetic_caption if row["strategy"] == "fused" else NOTHING_SEEN
            yield Triplet(source.pair_id, source.raw_caption, seen, row["caption"])
    yield from read_triplets(str(OWN))


def can_be_said(triplet: Triplet) -> bool:
    """Return whether the fused caption consists of the units that its sources offer."""
    units = sayable(triplet.raw_caption, triplet.synthetic_caption, free=free_words())
    said = re.sub(r"(?<=\w)'s\b|[:,](?=\s)|\.$", "", triplet.fused_caption).split()
    while said:
        count = next((n for n in (3, 2, 1) if " ".join(said[:n]).rstrip(".") in units), 0)
        if not count:
            return False
        said = said[count:]
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triplets", required=True)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    all_of_them = list(written(options.triplets))
    kept = [t for t in all_of_them if can_be_said(t)]
    columns = ("pair_id", "raw_caption", "synthetic_caption", "fused_caption")
    pq.write_table(pa.table({name: [getattr(t, name) for t in kept] for name in columns}), options.out)
    print(f"{len(kept)} of {len(all_of_them)} triplets")


if __name__ == "__main__":
    main()
