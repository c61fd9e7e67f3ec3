"""Compare the judge with labels made by reading: what is false among the captions that it accepts, and what it finds.

`labels.jsonl` has a label for each caption: F false, B broken, L lost, E embellished, G good (the rubric is in
docs/decisions/0017). Captions of CapsFusion's release are named by their hash; those of this project's fusers are there
as text. The sources come from a file in the layout of CapsFusion-120M, which is not part of this project.

    python benchmarks/truth.py --triplets triplets.parquet
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from capsfusion_etl.judge import CHECKS, Row
from capsfusion_trainer.refine.triplets import Triplet, read_triplets

LABELS = Path(__file__).with_name("labels.jsonl")
CLASSES = "FBLEG"


def labelled(triplets: str) -> Iterator[tuple[dict[str, Any], Row]]:
    """Yield each label, and the row that it is about, if its sources are in the file `triplets`."""
    sources: dict[str, list[Triplet]] = {}
    for triplet in read_triplets(triplets):
        sources.setdefault(triplet.pair_id, []).append(triplet)
    for line in LABELS.read_text(encoding="utf-8").splitlines():
        label = json.loads(line)
        for source in sources.get(label["pair_id"], []):
            caption = label.get("caption") or source.fused_caption
            if hashlib.sha256(caption.encode()).hexdigest()[:16] == label["hash"]:
                yield label, Row.of(source.raw_caption, source.synthetic_caption, caption)
                break


def table(name: str, labels: Iterable[str]) -> str:
    """Return the share of each class among `labels`."""
    counts = Counter(labels)
    total = max(counts.total(), 1)
    shares = "  ".join(f"{c} {counts[c] / total:.1%}" for c in CLASSES)
    return f"{name:34s} {counts.total():4d}  {shares}  false or broken {(counts['F'] + counts['B']) / total:.1%}"


def found(name: str, hits: list[str], wrong: int) -> str:
    """Return the precision and recall for false and broken captions of a check that reports the captions `hits`."""
    right = sum(label in "FB" for label in hits)
    return (
        f"    {name:20s} {len(hits):4d}  precision {right / max(len(hits), 1):.2f}  recall {right / max(wrong, 1):.2f}"
    )


def kappa(pairs: list[tuple[str, str]]) -> float:
    """Return Cohen's kappa of two readers."""
    agreed = sum(a == b for a, b in pairs) / len(pairs)
    first, second = (Counter(p[i] for p in pairs) for i in (0, 1))
    chance = sum(first[c] * second[c] for c in CLASSES) / len(pairs) ** 2
    return (agreed - chance) / (1 - chance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triplets", required=True)
    options = parser.parse_args()
    rows = list(labelled(options.triplets))
    for fuser, held_out in sorted({(label["fuser"], label["held_out"]) for label, _ in rows}):
        mine = [
            (label["label"], row) for label, row in rows if (label["fuser"], label["held_out"]) == (fuser, held_out)
        ]
        reports = {check.__name__: [label for label, row in mine if check(row)] for check in CHECKS}
        accepted = [label for label, row in mine if not any(check(row) for check in CHECKS)]
        wrong = sum(label in "FB" for label, _ in mine)
        print(table(f"{fuser}, {'held-out' if held_out else 'development'} rows", (label for label, _ in mine)))
        print(table("  accepted by the judge", accepted))
        print(found("any check", [label for label, row in mine if any(check(row) for check in CHECKS)], wrong))
        print(*(found(name, hits, wrong) for name, hits in reports.items() if hits), sep="\n")
    both = [(label["label"], label["second"]) for label, _ in rows if "second" in label]
    print(f"two readers of {len(both)} captions: kappa {kappa(both):.2f}")
    twice = [
        (label["label"], label["second"]) for label, _ in rows if "second" in label and label["fuser"] == "CapsFusion"
    ]
    hits = [first for first, second in twice if second in "FB"]
    print(found("one by the other", hits, sum(first in "FB" for first, _ in twice)), f"of {len(twice)} by CapsFusion")


if __name__ == "__main__":
    main()
