"""Test which spellings of a number or name count as stated in the source."""

import pytest
from capsfusion_etl.judge.grounding import ground
from capsfusion_etl.judge.spelling import Sources
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("source", "number", "held"),
    [
        ("9/25/08", "25", True),
        ("9/25/08", "2008", True),
        ("28-Nov-15", "2015", True),
        ("Oct'08", "2008", True),
        ("late 40s", "1940", True),
        ("v_Lions_091911", "2011", True),
        ("zero-hour-1-1-6", "1.1.6", True),
        ("usb 3 0", "3.0", True),
        ("€80,61", "80.61", True),
        ("Costs 62 700", "62,700", True),
        ("08 APR", "8", True),
        ("ratio 5: 1", "5:1", True),
        ("two dogs", "2", True),
        ("the third floor", "3", True),
        ("9/25/08", "26", False),
        ("1998", "1999", False),
        ("1998", "2098", False),
        ("12345", "123", False),
        ("no number", "7", False),
    ],
)
def test_numbers(source: str, number: str, held: bool) -> None:
    assert Sources(source).have_number(number) is held


@pytest.mark.parametrize(
    ("source", "name", "held"),
    [
        ("Mothers Day", "mother", True),
        ("handmade italian shoes", "italy", True),
        ("malasia", "malaysia", True),
        ("Snow Strom", "storm", True),
        ("30 Jan 2020", "january", True),
        ("6/29/2019", "june", True),
        ("IMG_091911", "september", True),
        ("Xmas lamp", "christmas", True),
        ("ofASOS trousers", "asos", True),
        ("Kennedy Space Cente", "center", True),
        ("café", "cafe", True),
        ("Flavours From The East", "eastern", True),
        ("6 GPU case", "gpus", True),
        ("Pfc. Dixon, Leadhill, Ark_War image", "arkansas", True),
        ("Coos Bay, OR 97420", "oregon", True),
        ("Nat'l Forest", "national", True),
        ("9-11: Was There an Alternative", "september", True),
        ("Oscar Wilde en mai 1893", "may", True),
        ("中国の窓", "chinese", True),
        ("9780072969047", "isbn", True),
        ("nazi symbol", "nazism", True),
        ("Kim Kardaan", "kardashian", True),
        ("Coos Bay, WA 97420", "oregon", False),
        ("one or two bays", "oregon", False),
        ("a café in España", "portugal", False),
        ("Lisbon", "porto", False),
        ("Maria", "marie", False),
        ("6 dogs", "june", False),
        ("Poe", "edgar", False),
        ("France", "europe", False),
    ],
)
def test_names(source: str, name: str, held: bool) -> None:
    assert Sources(source).have_name(name) is held


def test_initials_may_be_spelt_out() -> None:
    assert ground("6 NYC pools", "a pool", "In New York City there are 6 pools.").invented_names == ()
    assert ground("6 NYC pools", "a pool", "In New Haven there are 6 pools.").invented_names == ("haven", "new")


@given(st.text(), st.text(), st.text())
def test_any_text_can_be_asked(source: str, number: str, name: str) -> None:
    sources = Sources(source, name)
    assert sources.have_name(name) in (True, False)
    assert sources.have_number(number) in (True, False)
