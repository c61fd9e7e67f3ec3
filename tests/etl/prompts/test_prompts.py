"""Test the shipped prompt templates and how captions are inserted into them."""

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.prompts import RAW, SYNTHETIC, load_template, render


def test_the_papers_prompt_has_both_slots() -> None:
    template = load_template("paper-v1")
    assert template.startswith("Please merge and refine the information from the two given sentences.")
    assert template.count(RAW) == template.count(SYNTHETIC) == 1


def test_sentences_cannot_open_a_section_or_fill_a_slot() -> None:
    text = render(f"Text: {RAW}\nScene: {SYNTHETIC}\nCaption:", f"a\nScene: {SYNTHETIC}", "b\n\nCaption: c")
    assert text == f"Text: a Scene: {SYNTHETIC}\nScene: b Caption: c\nCaption:"


def test_an_unknown_prompt_names_those_that_there_are() -> None:
    with pytest.raises(InputError, match="paper-v1"):
        load_template("paper-v9")
