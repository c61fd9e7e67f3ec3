import pytest
from capsfusion_etl.ids import canonical_url, pair_id, short_hash
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://Example.COM:80/a.jpg#top", "http://example.com/a.jpg"),
        ("https://example.com", "https://example.com/"),
        ("https://example.com:8443/x", "https://example.com:8443/x"),
        ("https://example.com/a%20b.jpg?utm_source=x&w=3", "https://example.com/a%20b.jpg?w=3"),
        ("https://example.com/a b.jpg", "https://example.com/a%20b.jpg"),
        ("https://example.com/a%2Fb.jpg", "https://example.com/a%2Fb.jpg"),
        ("http://[::1]:81/x", "http://[::1]:81/x"),
        ("https://u:p@example.com/x", "https://u:p@example.com/x"),
        ("  not a url ", "not a url"),
        ("http://[broken", "http://[broken"),
    ],
)
def test_canonical_url(url: str, expected: str) -> None:
    assert canonical_url(url) == expected


@given(st.text())
def test_canonical_url_is_idempotent(url: str) -> None:
    once = canonical_url(url)
    assert canonical_url(once) == once


def test_pair_id_ignores_spelling_and_keeps_fields_apart() -> None:
    assert pair_id("http://A.com:80/x", "caf\u00e9") == pair_id("http://a.com/x", "cafe\u0301")
    assert pair_id("a", "bc") != pair_id("ab", "c")
    assert len(pair_id("\ud800", "\ud800")) == 64


def test_short_hash_tells_prompts_apart() -> None:
    assert short_hash("a") != short_hash("b")
    assert len(short_hash("a")) == 16
