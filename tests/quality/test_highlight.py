"""Test how words of a caption are marked and escaped for the report."""

from capsfusion_quality.highlight import highlight


def test_words_are_marked_and_everything_is_escaped() -> None:
    marked = highlight("<b>Lisbon</b> & Lisbonne, 1998", {"kept": ["lisbon"], "lost": ["1998", ""]})
    assert str(marked) == (
        '&lt;b&gt;<mark class="kept" title="kept">Lisbon</mark>&lt;/b&gt; &amp; Lisbonne, '
        '<mark class="lost" title="lost">1998</mark>'
    )
    assert str(highlight("a <i>", {})) == "a &lt;i&gt;"
    assert str(highlight(None, {"kept": ["x"]})) == "–"


def test_a_word_that_is_markup_stays_text() -> None:
    assert "<script>" not in str(highlight("x <script> y", {"invented": ["<script>"]}))
