"""The data card as README.md: a page for people, with the metadata of Hugging Face in front of it. Pure."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from capsfusion_etl.cards.facts import MOST_SOURCES
from capsfusion_etl.cards.holding import Holding

CITATION = """@inproceedings{yu2024capsfusion,
  title     = {CapsFusion: Rethinking Image-Text Data at Scale},
  author    = {Yu, Qiying and Sun, Quan and Zhang, Xiaosong and Cui, Yufeng and Zhang, Fan and Cao, Yue and Wang, Xinlong and Liu, Jingjing},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2024}
}"""  # noqa: E501
_SIZES = (
    (1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"), (10_000_000_000, "1B<n<10B"),
)  # fmt: skip
_STRATEGIES = {
    "fused": "Captions fused by a language model from the alt-text and a synthetic caption, as in CapsFusion.",
    "language-rewrite": "Alt-texts rewritten by a language model that saw nothing else, as in LaCLIP.",
    "raw": "Alt-texts as they were found.",
    "synthetic": "Captions that a captioning model wrote.",
    "mixed": "Alt-texts for some pairs, synthetic captions for the others.",
}
_LONGEST = 200  # characters of a cell
_MARKS = re.compile(r"[\\|`*\[\]<>]")
_LEAST_SHARE = 0.01  # of a sample, from which the card names a language
# Formats that `datasets` reads from a folder; of tars it loses pictures whose suffix is not that of the first ones.
_READ_BY_HUB = ("huggingface", "parquet")


def readme(facts: dict[str, Any], holding: Holding) -> str:
    """Return the card of a snapshot or an export.

    Args:
        facts: what `facts_of` returns.
        holding: the files.
    """
    head = yaml.safe_dump(_front_matter(facts, holding), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n" + "\n\n".join(_sections(facts, holding)) + "\n"


def _front_matter(facts: dict[str, Any], holding: Holding) -> dict[str, Any]:
    size = next((name for most, name in _SIZES if facts["rows"] < most), "10B<n<100B")
    matter: dict[str, Any] = {
        "pretty_name": holding.name,
        "license": "other",
        "license_name": "as-given-by-the-sources",
        "task_categories": ["image-to-text"],
        "language": _languages(facts) or ["und"],
        "size_categories": [size],
        "tags": ["image-text", "captions", "capsfusion", facts["strategy"]],
    }
    if holding.form in _READ_BY_HUB and holding.paths:
        files = [{"split": split, "path": path} for split, path in holding.paths.items()]
        matter["configs"] = [{"config_name": "default", "data_files": files}]
    return matter


def _languages(facts: dict[str, Any]) -> list[str]:
    found: dict[str, int] = facts["profile"].get("languages") or {}
    total = sum(found.values()) or 1
    return [name for name, count in found.items() if count / total >= _LEAST_SHARE and name != "und"]


def _sections(facts: dict[str, Any], holding: Holding) -> Iterator[str]:
    yield f"# {holding.name}"
    pictures = "" if holding.images else " as addresses, without the pictures"
    splits = ", ".join(f"{count:,} in `{split}`" for split, count in facts["splits"].items())
    yield (
        f"{facts['rows']:,} image-text pairs{pictures} ({splits}), strategy `{facts['strategy']}`. "
        f"{_STRATEGIES.get(facts['strategy'], '')}"
    )
    if holding.changes:
        told = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in holding.changes.items())
        yield f"**These files have only the changes since an earlier export:** {told}. Other figures are of the whole."
    yield "## Columns\n\n" + "\n".join(f"- `{name}`" for name in holding.columns)
    named = ((source, licence or "not given", f"{n:,}") for source, licence, n in facts["sources"][:MOST_SOURCES])
    more = "\n\nThere are more sources and licences than these." if len(facts["sources"]) > MOST_SOURCES else ""
    yield "## Sources, and their licences as given\n\n" + _table(("source", "licence", "pairs"), named) + more
    yield (
        "Each picture and each text belongs to whoever made it. The sources' words on licences are repeated here, not "
        "checked."
    )
    yield "## How it was filtered\n\n" + _funnel(facts)
    yield "## How the captions were made\n\n" + _made(facts)
    pin = facts["pin"]
    yield (
        f"## Provenance\n\nSnapshot `{pin['name']}`: version {pin['version']} of the Delta table `{pin['table_id']}`; "
        f"sha256 of its manifest: `{pin['manifest_sha256']}`."
    )
    yield "## Takedowns\n\n" + _takedowns(facts, holding)
    yield f"## Citation\n\n```bibtex\n{CITATION}\n```"


def _funnel(facts: dict[str, Any]) -> str:
    rows = [(stage, reason, f"{count:,}") for stage, reason, count in facts["funnel"]]
    begin, end = f"{facts['pairs']:,} pairs are in the lake", f"{facts['rows']:,} are published here"
    if not rows:
        return f"{begin}; no stage rejected any. {end[0].upper()}{end[1:]}."
    return f"{begin}, {end}. Rejected:\n\n" + _table(("stage", "reason", "pairs"), rows)


def _made(facts: dict[str, Any]) -> str:
    rows = [("engine", name, f"{n:,}") for name, n in facts["engines"].items()]
    rows += [("verdict of the judge", name, f"{n:,}") for name, n in facts["verdicts"].items()]
    rows += [("caption taken from", name, f"{n:,}") for name, n in facts["taken_from"].items()]
    rows += [("language of a sample", name, f"{n:,}") for name, n in (facts["profile"].get("languages") or {}).items()]
    gate = facts["gate"]
    passed = f"The quality gate {'passed' if gate['passed'] else 'did NOT pass'} ({gate['expectations']} expectations)."
    recall = facts["profile"].get("recall")
    kept = f" Captions keep {recall:.0%} of the names and numbers of their alt-texts." if recall is not None else ""
    return f"{passed}{kept}\n\n" + _table(("", "", "pairs"), rows)


def _takedowns(facts: dict[str, Any], holding: Holding) -> str:
    contact = facts["contact"]
    ask = (
        f"To have a pair removed, write to {_plain(contact)}." if contact else "The publisher has not named a contact."
    )
    if not holding.copy:
        return f"{ask} `capsfusion takedown` removes it from the lake, and marks the snapshots that hold it."
    return (
        f"{ask} What is removed at the source must be removed from copies, too: ask the publisher for the changes "
        "since this export (`capsfusion export --since export.json`), and apply them with `capsfusion apply CHANGES "
        "--to COPY`. Their `removed.parquet` lists the pair_ids to remove, for copies in other formats."
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    cells = [[_plain(cell) for cell in line] for line in lines]
    first, *rest = [f"| {' | '.join(line)} |" for line in cells]
    return "\n".join([first, "|" + "---|" * len(cells[0]), *rest])


def _plain(text: str | None) -> str:
    """Return a text of strangers, such as a licence, as Markdown that shows it and does nothing else."""
    line = " ".join((text or "").split())
    line = line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
    return _MARKS.sub(r"\\\g<0>", line)
