"""Test the documentation against the code: generated pages, commands, settings, and the build of the site."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["build_tables", "build_architecture"])
def test_the_pages_from_the_code_are_up_to_date(name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    assert build.PAGE.read_text() == build.page(), "run `make docs`"


def test_the_page_of_commands_names_every_command_and_status() -> None:
    from capsfusion_etl.cli.main import app

    page = (ROOT / "docs" / "commands.md").read_text()
    commands = {(c.name or c.callback.__name__).replace("_", "-") for c in app.registered_commands if c.callback}
    assert [c for c in commands if f"`{c}`" not in page] == []
    assert [s for s in (0, 1, 2, 3, 70, 130, 143) if f"| {s} |" not in page] == []


def commands() -> list[tuple[str, str]]:
    """Return every `capsfusion ...` line of README.md and docs, once for each round of its loop: page, line."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = re.sub(r"(?ms)^ +for (\w+) in (.*?); do$(.*?)^ +done$", rounds, page.read_text().replace("\\\n", " "))
        for block in re.findall(r"(?m)(?:^    .*\n)+", text):
            for line in block.splitlines():
                line = re.sub(r"\s{2,}#.*", "", line.strip())
                for part in re.split(r" && | > ", line):
                    part = re.sub(r"^(\$ |\w+=\S+ |\.venv/bin/)+", "", part)
                    if part.startswith("capsfusion "):
                        found.append((page.name, part.replace("...", "").strip()))
    return found


def rounds(loop: re.Match[str]) -> str:
    """Write the body of a shell's loop once for each word."""
    name, words, body = loop.groups()
    return "".join(body.replace(f"${name}", word) for word in words.split())


@pytest.mark.parametrize(("page", "line"), commands())
def test_the_commands_of_the_pages_have_options_and_settings_that_there_are(page: str, line: str) -> None:
    import typer
    from capsfusion_etl.cli.main import app
    from capsfusion_etl.pipeline import PipelineConfig
    from capsfusion_etl.settings import load, section
    from capsfusion_quality.thresholds import GateConfig
    from capsfusion_trainer.config import of_settings

    command: Any = typer.main.get_command(app)
    arguments = shlex.split(line)[1:]
    if arguments == ["--help"]:
        return
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    context = command.make_context(command.name, arguments)
    assert context.args == []  # no argument is left over
    given = context.params
    settings = load(None, given.get("sets") or [])
    if command.name == "publish" and "strategy" in settings.get("publish", {}):  # which the lake's settings name
        settings.setdefault("fuser", {}).setdefault("strategies", [settings["publish"]["strategy"]])
    if given.get("config") is None and "mine.engines" not in line:  # custom files and engines do not exist here
        PipelineConfig.of(settings)
        section(settings, "gate", GateConfig)
        of_settings(settings)


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    mkdocs = Path(sys.executable).with_name("mkdocs")
    done = subprocess.run(
        [mkdocs, "build", "--site-dir", tmp_path], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "fonts.g" not in (tmp_path / "index.html").read_text()
    assert "near_captions" in (tmp_path / "reference" / "index.html").read_text()
