"""Rules that the tables must satisfy before captions are published, as SQL that one pass over a table can compute.

`thresholds.yaml` has their bounds and severities; users can override them and add rules.
"""

from dataclasses import dataclass

from capsfusion_etl.judge.opinion import FAITHFUL, VERDICTS
from capsfusion_etl.tables import REJECT_REASONS, STAGES

SHA256 = "^[0-9a-f]{64}$"
RESIDUE = r"(?i)https?://|</?[a-z][^>]*>|[\w.+-]+@[\w-]+\.\w{2,}"
ECHO = r"(?i)\bsentences? ?[12]\b|\b(raw|synthetic) caption\b"


@dataclass(frozen=True, slots=True)
class Rule:
    """One expectation about a table, with either `broken` or `value`.

    Attributes:
        name: name of the rule in its suite.
        words: what is expected, for messages.
        broken: SQL condition that is true for a row that breaks the rule; the share of such rows is bounded.
        value: SQL aggregate over the table, which is bounded.
        shows: column from which messages show examples.
        sampled: whether the rows are a sample. The lower end of the 95 % interval of the share is then bounded, so that
            chance alone refuses nothing.
    """

    name: str
    words: str
    broken: str | None = None
    value: str | None = None
    shows: str = "pair_id"
    sampled: bool = False


def missing(column: str) -> Rule:
    """Return the rule that `column` is not null."""
    return Rule(f"{column}_missing", f"{column} is there", broken=f"{column} IS NULL")


def repeated(*columns: str, name: str = "repeated") -> Rule:
    """Return the rule that the key `columns` is unique; its value is the number of surplus rows."""
    key = ", ".join(columns)
    return Rule(name, f"{' and '.join(columns)} is unique", value=f"count(*) - count(DISTINCT {key})")


def no_match(name: str, words: str, column: str, regex: str) -> Rule:
    """Return the rule that `column` does not match `regex`."""
    return Rule(name, words, broken=f"{column} RLIKE {_quoted(regex)}", shows=column)


def one_of(column: str, values: tuple[str, ...], *, where: str = "true") -> Rule:
    """Return the rule that `column` is one of `values`, in the rows where the SQL condition `where` holds."""
    listed = ", ".join(f"'{v}'" for v in values)
    condition = f"{where} AND NOT coalesce({column} IN ({listed}), false)"
    return Rule(f"{column}_unknown", f"{column} has a known value", broken=condition, shows=column)


def _quoted(regex: str) -> str:
    return "r'" + regex.replace("'", ".") + "'"


ROWS = Rule("rows", "there are rows", value="count(*)")
# Table -> its rules, in the order of the reports.
RULES: dict[str, tuple[Rule, ...]] = {
    "pairs": (
        ROWS,
        missing("pair_id"),
        repeated("pair_id"),
        Rule("pair_id_format", "pair_id is a SHA-256 in hex", broken=f"NOT pair_id RLIKE '{SHA256}'"),
        missing("raw_caption"),
    ),
    "images": (
        repeated("url"),
        one_of("error", tuple(REJECT_REASONS["fetch"]), where="error IS NOT NULL"),
        Rule(
            "image_id_format",
            "image_id is a SHA-256 in hex",
            broken=f"error IS NULL AND NOT coalesce(image_id RLIKE '{SHA256}', false)",
            shows="url",
        ),
        Rule(
            "size_unknown",
            "width and height are known",
            broken="error IS NULL AND NOT coalesce(width > 0 AND height > 0, false)",
            shows="url",
        ),
    ),
    "rejects": (
        repeated("pair_id", "stage"),
        one_of("stage", STAGES),
        missing("reason"),
    ),
    "synthetic_captions": (
        missing("pair_id"),
        Rule("answer_missing", "the captioner leaves out few images", broken="caption IS NULL AND error IS NULL"),
        no_match("residue", "no URL, HTML or e-mail in synthetic captions", "caption", RESIDUE),
    ),
    "fused_captions": (
        repeated("pair_id"),
        missing("verdict"),
        Rule("accepted", "share of fused captions that passed", value="avg(cast(verdict = 'accepted' AS int))"),
        Rule(
            "recall",
            "share of the raw caption's names and numbers that accepted captions keep",
            value="avg(CASE WHEN verdict = 'accepted' THEN ledger.recall END)",
        ),
        Rule(
            "invention",
            "accepted captions invent no names or numbers",
            broken="verdict = 'accepted' AND size(ledger.invented_names) + size(ledger.invented_numbers) > 0",
            shows="answer",
        ),
        Rule(
            "embellished",
            "few accepted captions have praise that no source has",
            broken="verdict = 'accepted' AND coalesce(size(ledger.embellished), 0) > 0",
            shows="answer",
        ),
    ),
    "opinions": (
        Rule(
            "unfaithful",
            "few accepted captions are false or broken by a second opinion",
            broken=f"verdict IN {tuple(v for v in VERDICTS if v not in FAITHFUL)}",
            shows="caption",
            sampled=True,
        ),
        Rule("unanswered", "the second opinion answers", broken="verdict = 'engine_error'", shows="detail"),
    ),
    "training_pairs": (
        ROWS,
        repeated("pair_id"),
        missing("caption"),
        Rule("caption_shortest", "characters of the shortest caption", value="min(length(caption))"),
        Rule("caption_longest", "characters of the longest caption", value="max(length(caption))"),
        Rule("caption_words", "mean length of captions in words", value="avg(size(split(trim(caption), ' +')))"),
        one_of("caption_from", ("fused", "raw", "synthetic")),
        one_of("split", ("train", "held_out")),
        no_match("residue", "no URL, HTML or e-mail in captions", "caption", RESIDUE),
        no_match("echo", "no words of the prompt in captions", "caption", ECHO),
    ),
    "alarms": (
        Rule("canaries", "the canary rows were fused well", value="count_if(alarm = 'canaries')"),
        Rule("alarms", "no other alarm is raised", value="count_if(alarm <> 'canaries')"),
    ),
}  # fmt: skip

# Rule -> two tables: every pair_id of the first must exist in the second.
REFERENCES: dict[str, tuple[str, str]] = {
    "rejects_of_pairs": ("rejects", "pairs"),
    "synthetic_of_pairs": ("synthetic_captions", "pairs"),
    "fused_of_pairs": ("fused_captions", "pairs"),
    "published_of_pairs": ("training_pairs", "pairs"),
    "pairs_accounted_for": ("pairs", "accounted_for"),
}
REFERENCE_WORDS = {
    name: f"every pair_id of {child} exists in {parent}" for name, (child, parent) in REFERENCES.items()
} | {"pairs_accounted_for": "every pair is published or has a row in rejects"}
SHAPE_WORDS = {
    "short_twentieth": "5th percentile of caption lengths in words",
    "long_twentieth": "95th percentile of caption lengths in words",
    "main_language": "share of the most frequent language in a sample of captions",
}
DRIFT_WORDS = {
    "lengths": "caption lengths are distributed as in the previous snapshot (Kolmogorov-Smirnov distance)",
    "entities": "captions state as many names and numbers as in the previous snapshot (relative difference)",
    "recall": "captions keep as many facts as in the previous snapshot (difference in mean recall)",
    "domains": "pairs come from the same domains as in the previous snapshot (total variation distance)",
    "languages": "captions are in the same languages as in the previous snapshot (total variation distance)",
}
