"""Test how second opinions are read."""

import pytest
from capsfusion_etl.judge.opinion import read_opinion


@pytest.mark.parametrize(
    ("answer", "opinion"),
    [
        ('{"verdict": "good", "wrong": ""}', ("good", "")),
        ('{"verdict": "False", "wrong": " 3.50 euros "}', ("false", "3.50 euros")),
        ('The price is wrong.\n{"verdict": "false", "wrong": "euros"}\nI hope this helps.', ("false", "euros")),
        ('{"verdict": "good"} no, wait: {"verdict": "broken", "wrong": null}', ("broken", "")),
        ('{"verdict": "lost", "wrong": "a\nline"}', ("lost", "a\nline")),
        ('{"verdict": "fine", "wrong": ""}', None),
        ('{"verdict": ["good"]}', None),
        ('{"verdict": "good", "wrong": "cut', None),
        ("good", None),
        ("", None),
        ("{" * 10_000, None),
    ],
)
def test_an_opinion_is_read_from_what_models_write(answer: str, opinion: tuple[str, str] | None) -> None:
    assert read_opinion(answer) == opinion
