"""Test titles made of raw captions, and the doubts about answers that attach them."""

import pytest
from capsfusion_etl.engines.generation.doubt import doubt
from capsfusion_etl.engines.generation.titles import title_of
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        ("Barley Fields Sunset", "Barley Fields Sunset"),
        ("Red roses garden Stock Photo", "Red roses garden"),
        ("Back to school. Vector sketches. Stock Images", "Back to school, Vector sketches"),
        ("Humpty Dumpty - Step-by-Step Poem - VI", "Humpty Dumpty, Step-by-Step Poem, VI"),
        ("Buy Lambswool Poncho, Grey Online at johnlewis.com", "Lambswool Poncho, Grey"),
        ('"Sofidel 9"" Jumbo Roll"', 'Sofidel 9" Jumbo Roll'),
        ("INLAID LYRE CLOCK", "Inlaid Lyre Clock"),
        ("ugg-girls-penelope-boot.jpg", "ugg girls penelope boot"),
        ("Photo of 26418 Park Loop, TX 77355", "26418 Park Loop, TX 77355"),
        ("<b>Wall</b> &amp; mortar (2015", "Wall & mortar 2015"),
        ("The Whiskey Rebellion 9780195051919", "The Whiskey Rebellion"),
        ("New Girl: Email Fail", "New Girl: Email Fail"),
        ("Golden Gate, " + "a very long way, " * 20, "Golden Gate" + ", a very long way" * 11),
        ("红色的灯笼", "红色的灯笼"),
        ("Stock Photo", ""),
        ("https://example.com/a.jpg", ""),
        ("Chelsea the cat at home | Free Cat Pictures", "Chelsea the cat at home"),
        ("Quilted coat from Women's Clothing on Aliexpress.com US $34", "Quilted coat from Women's Clothing"),
        ("7", ""),
        ("", ""),
    ],
)
def test_the_title_of_a_raw_caption(raw: str, title: str) -> None:
    assert title_of(raw) == title


@settings(deadline=None)  # the first call reads the dictionary
@given(st.text(max_size=300), st.text(max_size=80), st.text(max_size=300))
def test_any_text_has_a_title_and_a_doubt_or_none(raw: str, synthetic: str, text: str) -> None:
    assert len(title_of(raw)) <= 201  # ß in capitals is SS
    doubt(raw, synthetic, text, title_of(raw))


@pytest.mark.parametrize(
    ("raw", "synthetic", "text", "why"),
    [
        ("Kew Dahlias", "A red flower.", "A red flower is seen in a picture titled Kew Dahlias.", None),
        ("Kew Dahlias", "A flower.", "A flower is shown.", "says little of the raw caption"),
        ("Kew Dahlias", "Kew dahlias in a vase.", "Kew dahlias are shown in a vase.", None),
        (
            "Kew Dahlias",
            "A red cup.",
            "A red and red cup is seen in a picture titled Kew Dahlias.",
            "says too often: red",
        ),
        ("Kew", "A cup.", "A picture shows a cup in a picture titled Kew.", "is about a picture of a picture"),
        ("Kew", "Cups on a lid.", "Cups are on a picture titled Kew.", "says 'on a picture titled'"),
        ("Kew", "A sign with the words learn Oregon.", "A sign with the words Oregon is titled Kew.", "cuts the words"),
        ("Kew", "A page with black text.", "A black page with text is titled Kew.", "binds other words"),
        ("Kew", "The page is big, with black text.", "A big page with black text is titled Kew.", None),
        ("Kew", "A rug in a room.", "A rug is in a room titled Kew.", "gives a title to room"),
        ("Kew", "A tray with cups.", "A tray with cups is titled Kew.", "gives a title to cups"),
        ("Kew", "A map of a town.", "A map of a town is titled Kew.", None),
        ("Kew", "A cup, a cup.", "A cup is is seen in a picture titled Kew.", "repeats: is is"),
        ("red hat, big blue tie, old shoe", "", "A hat is big, with a tie and a shoe.", "joins 4 pieces"),
        ("Anna Keller in Oslo", "", "Anna Keller is shown in Oslo.", None),
    ],
)
def test_what_is_doubted(raw: str, synthetic: str, text: str, why: str | None) -> None:
    found = doubt(raw, synthetic, text, title_of(raw) if synthetic else "")
    assert found == why if why is None else str(found).startswith(why)
