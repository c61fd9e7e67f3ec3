"""`capsfusion compare`: train the same recipe on the captions of several strategies, and show which wins where."""

from pathlib import Path
from typing import Annotated

import typer
from capsfusion_etl.cli.options import ConfigOption, SetOption
from capsfusion_etl.errors import InputError

from capsfusion_trainer.cli.evaluate import is_first

FilesOption = list[Path] | None


def compare(
    lake: Annotated[str, typer.Option("--lake", help="Folder of the tables.")],
    strategies: Annotated[str, typer.Option("--strategies", help="Published strategies, such as fused,raw,synthetic.")],
    scales: Annotated[str, typer.Option("--scales", help="Numbers of pairs seen in training, such as 1000,10000.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the runs, the tables and the page.")],
    seeds: Annotated[str, typer.Option("--seeds", help="One training run for each seed.")] = "0",
    recipe: Annotated[str, typer.Option("--recipe", help="Named recipe of every run.")] = "micro_cpu",
    references: Annotated[
        FilesOption, typer.Option("--references", help="Reference captions (COCO's layout and others); repeatable.")
    ] = None,
    clozes: Annotated[
        FilesOption, typer.Option("--clozes", help="Clozes in JSON lines: image, prompt, answers; repeatable.")
    ] = None,
    text: Annotated[
        FilesOption, typer.Option("--text", help="Lines of text without pictures, for the loss per token; repeatable.")
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of the pictures of these files.")] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Strategy to compare the others with; by default the first.")
    ] = None,
    along: Annotated[
        bool, typer.Option("--along", help="Score one long run at every scale, instead of a run of each scale.")
    ] = False,
    repeat: Annotated[bool, typer.Option("--repeat", help="Allow scales that show pairs more than once.")] = False,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Beam width of captioning.")] = 5,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Longest caption; by default as in training.")
    ] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
) -> None:
    """Train the same recipe on the captions of each strategy and show which one wins at which scale."""
    from capsfusion_etl import settings as s

    from capsfusion_trainer.config import of_settings

    settings = s.load(config, sets or ())
    s.put(settings, "trainer", "recipe", recipe)
    chosen = of_settings(settings)
    from capsfusion_trainer.compare.grid import Grid
    from capsfusion_trainer.compare.page import markdown
    from capsfusion_trainer.compare.run import compare as run
    from capsfusion_trainer.compare.suite import read_suite

    names = [name.strip() for name in strategies.split(",") if name.strip()]
    grid = Grid(names, _numbers(scales, "scales"), _numbers(seeds, "seeds"), along, repeat)
    suite = read_suite(images, references or (), clozes or (), text or (), beams=beams, max_new_tokens=max_new_tokens)
    found = run(lake, grid, chosen, out, suite, against=against)
    if is_first():
        print(markdown(found))
        print(out / "results.html")


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part.replace("_", "")) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--{option} wants whole numbers separated by commas, got {text!r}") from None
