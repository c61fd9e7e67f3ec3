"""Test canonical URLs, pair ids, and names that are safe as file names."""

from pathlib import Path

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import canonical_url, check_name, host_of, is_name, pair_id, short_hash, spellings_of
from capsfusion_etl.stages.ingest.config import SourceConfig
from capsfusion_etl.stages.publish import PublishConfig
from capsfusion_etl.storage import remove
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


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Stra\u00dfe.example/a", "xn--strae-oqa.example"),  # IDNA 2008, as the fetcher asks
        ("http://strasse.example/a", "strasse.example"),
        ("http://u@B\u00fccher.example.:80/", "xn--bcher-kva.example"),
        ("http://[2001:DB8::1]:81/", "[2001:db8::1]"),
        ("http://_a b_/", "_a b_"),
    ],
)
def test_hosts(url: str, host: str) -> None:
    assert host_of(url) == host


def test_a_url_may_be_named_with_its_host_in_ascii() -> None:
    written, plain = spellings_of("http://b\u00fccher.example./4")
    assert written == canonical_url("http://b\u00fccher.example./4")
    assert [plain] == spellings_of("http://xn--bcher-kva.example/4")


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


@pytest.mark.parametrize("name", ["july", "2026-07", "v1.2_b", "a" * 128, "s0001"])
def test_names(name: str) -> None:
    assert check_name(name, "snapshot") == name


NO_NAMES = ["", ".", "..", ".hidden", "a/b", "../b", "a\\b", "bob's", "a b", "a" * 129, "-x", "caf\u00e9", "a\n", "a\0"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_refused_where_it_enters(name: str) -> None:
    with pytest.raises(InputError, match="cannot be the name of a snapshot"):
        PublishConfig(name=name)
    with pytest.raises(InputError, match="cannot be the name of a source"):
        SourceConfig(name=name)


@given(st.text())
def test_a_name_stays_in_its_folder(name: str) -> None:
    if is_name(name):
        assert Path("/lake/_holds", name).resolve().parent == Path("/lake/_holds")


def test_a_folder_is_removed_only_below_its_owner(tmp_path: Path) -> None:
    lake, other = tmp_path / "lake", tmp_path / "other"
    (lake / "_holds" / "july").mkdir(parents=True)
    (other / "july").mkdir(parents=True)
    (lake / "_holds" / "link").symlink_to(other / "july")
    for folder in (lake / "_holds" / "..", lake / "_holds", other / "july", lake / "_holds" / "link"):
        with pytest.raises(InputError, match="nothing was removed"):
            remove(folder, within=lake / "_holds")
    assert (other / "july").is_dir()
    remove(lake / "_holds" / "july", within=lake / "_holds")
    assert not (lake / "_holds" / "july").exists()
    remove(lake / "_holds" / "july", within=lake / "_holds")  # already removed: no error
