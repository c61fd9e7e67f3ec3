"""What the pages say is what the code does."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_page_of_tables_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("build_tables", ROOT / "docs" / "build_tables.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    assert build.PAGE.read_text() == build.page(), "run `make docs`"


def test_the_readme_names_every_command_and_status() -> None:
    from capsfusion_etl.cli import app

    readme = (ROOT / "README.md").read_text()
    commands = {(c.name or c.callback.__name__).replace("_", "-") for c in app.registered_commands if c.callback}
    assert [c for c in commands if f"`{c}`" not in readme] == []
    assert [s for s in (0, 1, 2, 3, 70, 130, 143) if f"| {s} |" not in readme] == []
