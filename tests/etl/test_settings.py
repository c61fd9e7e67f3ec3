"""Test how settings are loaded, overridden, validated and remembered."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from capsfusion_etl import settings
from capsfusion_etl.cli.options import settings_of
from capsfusion_etl.engines import FuserConfig
from capsfusion_etl.errors import InputError
from capsfusion_etl.lake.location import prepare
from capsfusion_etl.lake.saved_settings import remember


@dataclass(frozen=True)
class Example:
    size: int = 1
    names: tuple[str, ...] = ()


def test_assignments_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("fuser: {max_new_tokens: 40, fallback: raw}")
    loaded = settings.load(str(path), ["fuser.max_new_tokens=60", "fuser.limits.max_chars=99"])
    fuser = settings.section(loaded, "fuser", FuserConfig)
    assert (fuser.max_new_tokens, fuser.fallback, fuser.limits.max_chars) == (60, "raw", 99)


def test_a_list_fills_a_tuple() -> None:
    assert settings.section({"gate": {"names": ["a", "b"]}}, "gate", Example).names == ("a", "b")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_tokens": 5}, "fuser.max_tokens: unknown key"),
        ({"limits": {"min_recal": 0.5}}, "fuser.limits.min_recal: unknown key"),
        ({"max_new_tokens": "60"}, "fuser.max_new_tokens: Input should be a valid integer"),
        ({"fallback": "nothing"}, "fallback must be one of synthetic, raw, drop"),
    ],
)
def test_wrong_keys_and_types_are_refused_with_their_path(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings.section({"fuser": values}, "fuser", FuserConfig)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("fuser.max_new_tokens", "wants section.key=value"),
        ("fuser=3", "wants section.key=value"),
        ("fusser.name=x", "unknown section 'fusser'"),
    ],
)
def test_wrong_assignments(assignment: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings.load(None, [assignment])


@pytest.mark.parametrize("text", ["- a\n- b", "fuser: 3", "fuser: {name: ["])
def test_files_that_are_no_config(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"config.yaml"):
        settings.load(str(path))


def test_a_missing_file() -> None:
    with pytest.raises(InputError, match=r"cannot read the config nowhere\.yaml"):
        settings.load("nowhere.yaml")


def test_another_source_drops_the_saved_columns_and_keeps_what_this_command_sets(tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    prepare(lake)
    remember(lake, {"source": {"pairs": "old.csv", "columns": {"raw_caption": "TEXT"}}, "fuser": {"name": "openai"}})
    merged = settings_of(lake, None, ["source.layout=cc12m", "source.name=cc12m"], {"source.pairs": "cc12m.tsv"})
    assert merged == {
        "source": {"pairs": "cc12m.tsv", "layout": "cc12m", "name": "cc12m"}, "fuser": {"name": "openai"}
    }  # fmt: skip
    assert settings_of(lake, None, None)["source"] == {"pairs": "old.csv", "columns": {"raw_caption": "TEXT"}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("2.0e-5", 2e-5), ("0.00003", 3e-5), ("3e-05", 3e-5), ("-.5E+3", -500.0), ("1E5", 1e5),
        ("010", 10), ("0x1F", 31), ("1:30", "1:30"), ("2024-02-30", "2024-02-30"), ("2024-07-01", "2024-07-01"),
        ("0x_", "0x_"), ("5.", 5.0), ("12", 12),
        ("e5", "e5"), ("1e", "1e"), ("1.2.3", "1.2.3"), ("'1e-4'", "1e-4"), ("v1e-4", "v1e-4"),
    ],
)  # fmt: skip
def test_numbers_in_yaml(tmp_path: Path, text: str, value: object) -> None:
    """With an exponent, too, as people and JSON write them; a file reads as an assignment does."""
    file = tmp_path / "settings.yaml"
    file.write_text(f"fetch: {{timeout_s: {text}}}")
    found = [settings.load(None, [f"fetch.timeout_s={text}"]), settings.load(str(file))]
    assert found == [{"fetch": {"timeout_s": value}}] * 2
    assert all(type(each["fetch"]["timeout_s"]) is type(value) for each in found)


def test_a_key_that_is_there_twice(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("fetch: {timeout_s: 3}\nfuser: {name: openai}\nfetch: {retries: 1}\n")
    with pytest.raises(InputError, match="line 3: 'fetch' is there twice"):
        settings.load(str(file))


def test_an_assignment_that_is_not_yaml() -> None:
    with pytest.raises(InputError, match="not YAML"):
        settings.load(None, ["fuser.prompt=[a"])
    with pytest.raises(InputError, match="columns is set to a value"):
        settings.load(None, ["source.columns=a", "source.columns.url=b"])
