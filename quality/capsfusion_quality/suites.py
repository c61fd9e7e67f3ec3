"""What must hold before captions are published: one list of expectations for each table, in code.

An expectation with severity `fail` blocks the snapshot, one with `warn` only shows (design section 6).
"""

from dataclasses import dataclass

from capsfusion_etl.tables import REJECT_REASONS, STAGES
from great_expectations import expectations as gxe
from great_expectations.expectations.expectation import Expectation

SHA256 = r"^[0-9a-f]{64}$"
RESIDUE = r"(?i)https?://|</?[a-z][^>]*>|[\w.+-]+@[\w-]+\.\w{2,}"
ECHO = r"(?i)\bsentences? ?[12]\b|\b(raw|synthetic) caption\b"


@dataclass(frozen=True, slots=True)
class GateConfig:
    """Thresholds; shares and means are 0 to 1. Lengths in characters.

    `min_accepted`: share of fused captions that passed their judge; `min_recall`: mean share of the raw caption's names
    and numbers that an accepted caption keeps (a warning only: it depends on how noisy the alt-text is).
    """

    min_accepted: float = 0.5
    min_recall: float = 0.8
    max_caption_chars: int = 1_000
    min_rows: int = 1


@dataclass(frozen=True, slots=True)
class Check:
    """An expectation, in words, and what happens if it does not hold."""

    words: str
    expectation: Expectation
    severity: str = "fail"


def suites(config: GateConfig) -> dict[str, list[Check]]:
    """Table -> its checks, in the order in which people read them."""
    return {
        "pairs": [
            Check("pair_id is there", gxe.ExpectColumnValuesToNotBeNull(column="pair_id")),
            Check("pair_id is unique", gxe.ExpectColumnValuesToBeUnique(column="pair_id")),
            Check("pair_id is a sha256", gxe.ExpectColumnValuesToMatchRegex(column="pair_id", regex=SHA256)),
            Check("raw_caption is there", gxe.ExpectColumnValuesToNotBeNull(column="raw_caption")),
        ],
        "images": [
            Check("url is unique", gxe.ExpectColumnValuesToBeUnique(column="url")),
            Check("error is a known reason", gxe.ExpectColumnValuesToBeInSet(
                column="error", value_set=list(REJECT_REASONS["fetch"]))),
        ],
        "rejects": [
            Check("one row for each pair and stage", gxe.ExpectCompoundColumnsToBeUnique(
                column_list=["pair_id", "stage"])),
            Check("stage is a known one", gxe.ExpectColumnValuesToBeInSet(column="stage", value_set=list(STAGES))),
            Check("there is a reason", gxe.ExpectColumnValuesToNotBeNull(column="reason")),
        ],
        "fused_captions": [
            Check("pair_id is unique", gxe.ExpectColumnValuesToBeUnique(column="pair_id")),
            Check("there is a verdict", gxe.ExpectColumnValuesToNotBeNull(column="verdict")),
            Check(f"at least {config.min_accepted:.0%} accepted", gxe.ExpectColumnMeanToBeBetween(
                column="accepted", min_value=config.min_accepted)),
            Check(f"accepted captions keep {config.min_recall:.0%} of names and numbers",
                gxe.ExpectColumnMeanToBeBetween(column="accepted_recall", min_value=config.min_recall), "warn"),
        ],
        "training_pairs": [
            Check(f"at least {config.min_rows} rows", gxe.ExpectTableRowCountToBeBetween(min_value=config.min_rows)),
            Check("pair_id is unique", gxe.ExpectColumnValuesToBeUnique(column="pair_id")),
            Check("caption is there", gxe.ExpectColumnValuesToNotBeNull(column="caption")),
            Check(f"caption has 1 to {config.max_caption_chars} characters", gxe.ExpectColumnValueLengthsToBeBetween(
                column="caption", min_value=1, max_value=config.max_caption_chars)),
            Check("caption comes from a known place", gxe.ExpectColumnValuesToBeInSet(
                column="caption_from", value_set=["fused", "raw", "synthetic"])),
            Check("no URL, HTML or e-mail in captions", gxe.ExpectColumnValuesToNotMatchRegex(
                column="caption", regex=RESIDUE)),
            Check("no words of the prompt in captions", gxe.ExpectColumnValuesToNotMatchRegex(
                column="caption", regex=ECHO, mostly=0.999)),
        ],
        "alarms": [
            Check("no alarm is raised", gxe.ExpectTableRowCountToEqual(value=0)),
        ],
        "lost_pairs": [
            Check("every pair is published or has a row in rejects", gxe.ExpectTableRowCountToEqual(value=0)),
        ],
    }  # fmt: skip
