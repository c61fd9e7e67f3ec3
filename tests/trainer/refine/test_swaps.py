"""Test the augmentation by other names and numbers."""

import re
from pathlib import Path

from capsfusion_etl.judge import judge
from capsfusion_trainer.refine.swaps import with_swaps
from capsfusion_trainer.refine.triplets import Triplet, read_triplets, teachable

OWN = Path(__file__).parents[3] / "examples" / "refine" / "triplets.jsonl"


def test_names_and_numbers_change_in_all_three_captions() -> None:
    rows = [
        Triplet(
            "a", "Orvane bolt 20mm, Tamsel 1998", "an Orvane bolt", "The Orvane bolt by Tamsel, 20 mm, is of 1998."
        ),
        Triplet("b", "a red chair", "a chair", "A red chair is shown."),
    ]
    swapped = with_swaps(rows)
    assert swapped[:2] == rows
    [other] = swapped[2:]
    number, year = re.findall(r"\d+", other.raw_caption)
    assert re.findall(r"\d+", other.fused_caption) == [number, year]
    assert (len(number), 1950 <= int(year) <= 2022, other.pair_id != "a") == (2, True, True)
    first, second = other.raw_caption.split()[0], other.raw_caption.split()[3]
    assert other.synthetic_caption == f"an {first} bolt"
    assert other.fused_caption.startswith(f"The {first} bolt by {second}, {number} mm")


def test_the_projects_own_triplets_are_all_worth_learning() -> None:
    own = read_triplets(str(OWN))
    kept, left = teachable(own, 0.5)
    assert (len(own) >= 500, len(kept) / len(own) > 0.97) == (True, True), left
    swapped = with_swaps(own)[len(own) :]
    assert len(swapped) > 300
    assert {judge(t.raw_caption, t.synthetic_caption, t.fused_caption).verdict for t in swapped} == {"accepted"}
