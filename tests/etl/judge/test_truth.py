"""Tests of the checks that find captions which say what no source says: support, binding, and whole sentences."""

import time

import pytest
from capsfusion_etl.judge import ACCEPTED, Limits, judge
from capsfusion_etl.judge.binding import misbound
from capsfusion_etl.judge.sentence import has_finite_verb, said_twice
from capsfusion_etl.judge.support import Support, support
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("raw", "synthetic", "fused", "verdict"),
    [
        # numbers keep currency, unit, rank and noun
        ("Lamp $395", "a lamp", "The lamp is sold in 395 units.", "wrong_binding"),
        ("Espresso, only $3.50", "a cup", "The espresso in a cup is listed at 3.50 euros.", "wrong_binding"),
        ("Espresso, only $3.50", "a cup", "The espresso in a cup is listed at $3.50.", ACCEPTED),
        ("Jacket 80 EUR", "a jacket", "The jacket is sold for €80.", ACCEPTED),
        ("Lot 24: Greek coins", "coins", "The coins are at the 24th location.", "wrong_binding"),
        ("Lot 24: Greek coins", "coins", "Lot 24 shows Greek coins.", ACCEPTED),
        ("Race on May 4", "a race", "The race is on May 4th.", ACCEPTED),
        ("Boot Lace 60 in", "a cord", "The cord is a boot lace of 60 inches.", ACCEPTED),
        ("Stainless cup 20 oz", "a mug", "A stainless cup is shown with 20 lids.", "wrong_binding"),
        ("Lampe 80 €", "a lamp", "The lampe is listed at 80 euros.", ACCEPTED),
        ("Lamps $20-$30", "lamps", "The lamps are listed from $20 to $30.", ACCEPTED),
        ("Rug £20", "a rug", "The rug is listed at 20 pounds.", ACCEPTED),
        ("$5 million house", "a house", "The house is listed at 5 million dollars.", ACCEPTED),
        ("Ride of 3 hrs", "a train", "The train ride is 3 hours.", ACCEPTED),
        ('TV 24" Sonor', "a television", "The Sonor TV is 24-inch.", ACCEPTED),
        ("4 dogs", "puppies", "The picture shows 4 puppies.", ACCEPTED),
        ("W 42 St", "a street", "The street is W 42nd St.", ACCEPTED),
        ("Tablet 11 inch 2020", "a tablet", "The 11 inch tablet has 2020 pixels.", "wrong_binding"),
        # words that no source has
        ("Glass Movie Review", "a poster", "Glass is a popular movie.", "unsupported"),
        ("Soap", "a bottle", "The bottle of soap removes dirt, grime and stubborn grease.", "unsupported"),
        ("Dr. Lane at work", "a person with a book", "Dr. Lane reads her book.", "unsupported"),
        ("Dr. Lane at work", "a woman with a book", "Dr. Lane reads her book.", ACCEPTED),
        ("Chair", "a chair", "This stylish chair is a stunning, elegant piece.", "embellished"),
        ("A stunning, elegant chair", "a chair", "The stunning chair is elegant.", ACCEPTED),
        ("Waitress in Bonn", "a tray", "The waitress in Bonn holds her tray.", ACCEPTED),
        ("Race, 5/4/2019", "a race", "The race is dated May 4, 2019.", ACCEPTED),
        ("3 lamps", "lamps", "The three lamps are shown.", ACCEPTED),
        ("5 kΩ resistor", "a resistor", "The resistor often saves beautiful elephants in famous zoos.", "unsupported"),
        ("Bike helmet", "a kid on a bicycle", "A child on a bike wears a helmet.", ACCEPTED),
        # sentences
        ("Log cabin", "a house", "The log cabin features a cabin.", "clause_twice"),
        ("Red bike sale", "a bicycle", "A red bike with two wheels on it.", "no_verb"),
        ("Police car", "police on a street", "The police stand on a street.", ACCEPTED),
        ("Cat", "a cat on the sofa", "It's the cat on a sofa.", ACCEPTED),
        ("Map of Paris 1900", "a map", "This shows Paris on the map of 1900.", ACCEPTED),
        ("3 gnomes", "gnomes on a shelf", "The gnomes of a set of 3 sit on a shelf.", ACCEPTED),
        ("Bird house", "a house", "The house has a bird house.", ACCEPTED),
        ("Haus an der See", "a house", "Ein Haus steht an der See.", ACCEPTED),
        ("La tour Eiffel de nuit", "a tower", "La tour Eiffel est vue de nuit.", ACCEPTED),
        ("Club members", "people", "Members of the club stand next to each other.", ACCEPTED),
    ],
)
def test_verdicts(raw: str, synthetic: str, fused: str, verdict: str) -> None:
    judgement = judge(raw, synthetic, fused)
    assert (judgement.verdict, bool(judgement.detail)) == (verdict, verdict != ACCEPTED)


def test_kinds_of_words() -> None:
    found = support("Her stylish lamp is often used by plumbers.", "Brass lamp", "a lamp on a table")
    assert found == Support(unsupported=("plumbers",), claims=("often",), embellished=("stylish",), genders=("her",))


def test_thresholds_are_obeyed() -> None:
    caption = ("Brass lamp", "a lamp", "A brass lamp warms plumbers, carpenters and bakers.")
    assert judge(*caption).verdict == "unsupported"
    assert judge(*caption, Limits(max_unsupported=4)).verdict == ACCEPTED


@pytest.mark.parametrize(
    ("raw", "fused"),
    [
        ("红色的灯笼", "红色的灯笼挂在天花板上。"),
        ("Красный фонарь", "A red lantern hangs from a ceiling."),
        ("SALE!!! BEST LAMP", "The best lamp is on sale."),
        ("lamp, brass, table, light", "A brass table lamp is shown."),
        ("", "A lamp is on a table."),
    ],
)
def test_other_scripts_capitals_and_lists_are_supported(raw: str, fused: str) -> None:
    assert judge(raw, "a lamp on a table", fused).verdict == ACCEPTED


def test_long_texts_take_no_time() -> None:
    sign, price = "sign the " * 8_000, "$20 lamps, " * 4_000
    started = time.process_time()
    for text in (sign, price):
        support(text, text)
        misbound(text, text)
        has_finite_verb(text)
        said_twice(text, "")
    assert time.process_time() - started < 10  # guards against quadratic time; it is not a benchmark


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_no_text_raises(raw: str, synthetic: str, fused: str) -> None:
    support(fused, raw, synthetic)
    misbound(fused, raw, synthetic)
    has_finite_verb(fused)
    assert judge(raw, synthetic, fused).verdict
