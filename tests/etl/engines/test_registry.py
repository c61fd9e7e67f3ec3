"""Test the settings of captioners, and the hash that decides whether captions are made again."""

import pytest
from capsfusion_etl.engines import CaptionerConfig, FuserConfig, captioner_hash, fuser_hash, needs_images
from capsfusion_etl.errors import InputError
from capsfusion_etl.settings import section


def test_a_captioner_for_what_the_source_lacks() -> None:
    both = CaptionerConfig(name="column", otherwise="classifier", batch_size=8)
    assert both.maker == CaptionerConfig(name="classifier", batch_size=8)
    assert needs_images(both)
    column = CaptionerConfig(name="column")
    assert column.maker is column
    assert not needs_images(column)
    assert len({captioner_hash(c) for c in (both, column, both.maker)}) == 3


@pytest.mark.parametrize("settings", [{"otherwise": "classifier"}, {"name": "column", "otherwise": "column"}])
def test_otherwise_belongs_to_column(settings: dict[str, str]) -> None:
    with pytest.raises(InputError, match="otherwise is only valid with name: column, and names another engine"):
        section({"captioner": settings}, "captioner", CaptionerConfig)


def test_settings_that_came_later_do_not_make_captions_again() -> None:
    """These hashes are in the lakes of users."""
    assert captioner_hash(CaptionerConfig()) == "59adfa4f737c4e0e"
    assert fuser_hash(FuserConfig(name="openai"), "c") == "ec35ac295c577f2d"
    assert fuser_hash(FuserConfig(name="openai", only_sources=True), "c") != "ec35ac295c577f2d"
