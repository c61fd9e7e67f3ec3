"""Test the shipped bounds of the rules, custom files, and messages about mistakes in them."""

from pathlib import Path

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_quality.expectations import validate
from capsfusion_quality.measure import Fact
from capsfusion_quality.rules import DRIFT_WORDS, REFERENCES, RULES, SHAPE_WORDS
from capsfusion_quality.thresholds import GateConfig, bounded


def test_every_rule_has_bounds_in_the_file_that_ships() -> None:
    there = {(b.suite, b.rule.name) for b in bounded(GateConfig()) if b.rule.name != "schema"}
    assert there == {
        *((table, rule.name) for table, rules in RULES.items() for rule in rules),
        *(("references", name) for name in REFERENCES),
        *(("shape", name) for name in SHAPE_WORDS),
        *(("drift", name) for name in DRIFT_WORDS),
    }


def test_a_file_changes_what_it_names_and_settings_win(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("fused_captions:\n  accepted: {min: 0.8}\n  recall: {severity: fail}\n")
    config = GateConfig(thresholds=str(mine), rules={"fused_captions": {"accepted": {"min": 0.9}}})
    found = {(b.suite, b.rule.name): b.limit for b in bounded(config)}
    assert found["fused_captions", "accepted"].min == 0.9
    assert (found["fused_captions", "recall"].severity, found["fused_captions", "recall"].min) == ("fail", 0.8)
    assert found["pairs", "rows"].min == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fused_caption: {accepted: {min: 1}}", "no suite 'fused_caption': did you mean 'fused_captions'"),
        ("fused_captions: {acepted: {min: 1}}", "no rule 'acepted': did you mean 'accepted'"),
        ("fused_captions: {accepted: {mim: 1}}", r"accepted\.mim: .* did you mean 'min'"),
        ("fused_captions: {accepted: {min: much}}", r"accepted\.min: "),
        ("fused_captions: {accepted: {severity: bad}}", "'bad' is none of fail, warn"),
        ("pairs: {pair_id_missing: {max_share: 3}}", "between 0 and 1"),
        ("pairs: {mine: {broken: 'url IS NULL'}}", "say max_share, min or max"),
        ("pairs: {rows: {min: 1}}\nimages: {}\npairs: {rows: {min: 2}}", "line 3: 'pairs' is there twice"),
        ("pairs: {rows: {min: 1}, rows: {min: 2}}", "line 1: 'rows' is there twice"),
        ("drift: {mine: {value: '1', max: 0}}", "is about a table"),
        ("pairs: 3", "must map rules to their bounds"),
        ("- pairs", "must map suites to their rules"),
        ("pairs: {", "is not YAML"),
    ],
)
def test_a_file_with_a_mistake(tmp_path: Path, text: str, message: str) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(text)
    with pytest.raises(InputError, match=message):
        bounded(GateConfig(thresholds=str(mine)))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InputError, match="cannot read"):
        bounded(GateConfig(thresholds="nowhere.yaml"))


def test_data_docs_escape_what_came_from_data(tmp_path: Path) -> None:
    rules = [rule for rule in bounded(GateConfig()) if rule.suite == "drift"]
    tag = "<img src=x onerror=alert(1)>"
    facts = {(r.suite, r.rule.name): Fact(99.0, f"seen {tag}", 1, (f"row {tag}",)) for r in rules}
    validate(rules, facts, tmp_path / "gx", tmp_path / "docs")
    pages = {page.name: page.read_text() for page in (tmp_path / "docs").rglob("*.html")}
    assert {"drift.html", "facts-drift.html"} <= pages.keys()
    assert not [name for name, text in pages.items() if "<img src=x" in text]
    assert "seen &lt;img src=x" in pages["facts-drift.html"]
    assert "row &lt;img src=x" in pages["drift.html"]
