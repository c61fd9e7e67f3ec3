"""Write docs/architecture.md from the code: `make docs`. A test checks that the page is up to date."""

import ast
import io
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import grimp
import matplotlib
from capsfusion_etl.lake.watchers import LINEAGE
from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
PAGE = Path(__file__).parent / "architecture.md"
PICTURE = Path(__file__).parent / "images" / "architecture.svg"
ETL, QUALITY, TRAINER, K8S = "capsfusion_etl", "capsfusion_quality", "capsfusion_trainer", "capsfusion_k8s"
FOLDERS = {name: ROOT / name.removeprefix("capsfusion_") / name for name in (ETL, QUALITY, TRAINER, K8S)}
HEAD = """# Architecture

`make docs` writes this page and its picture from the code, so that they stay true; `make check` enforces what they
show.

Four packages: `capsfusion_etl` runs the Spark jobs, `capsfusion_quality` the gate and the report,
`capsfusion_trainer` the training, `capsfusion_k8s` the operator. `quality` and `trainer` import `etl`; `etl` imports
neither and gets the gate passed in; the operator speaks to the others by command line, files and Kubernetes objects.

![The rooms of etl, and the way of a row](images/architecture.svg)

Left, the rooms of `etl`: an arrow is an import, and a room imports only what stands below it. Arrows that follow from
others are left out, and so is `errors`, which every room may import. Right, the way of a row: the tables that each
stage writes. A pair that a stage removes gets a row in `rejects`.

## What lives where

In each folder of `stages`, `stage.py` is the driver's side (Spark) and `worker.py` the executor's (Arrow batches in,
Arrow batches out). The other modules know nothing of Spark's plans."""


def page() -> str:
    """Return the page as Markdown."""
    wings = {"The gate and the report": QUALITY, "The trainer": TRAINER, "The operator": K8S}
    tables = [text for title, package in wings.items() for text in (f"## {title}", table(package))]
    return "\n\n".join([HEAD, table(ETL), *tables]) + "\n"


def layers(package: str) -> list[list[str]]:
    """Return the rooms of a package, layer by layer, as the contract in pyproject.toml has them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    [found] = [c["layers"] for c in contracts if c.get("containers") == [package]]
    return [[room.strip() for room in layer.split("|")] for layer in found]


def imports_of(package: str) -> dict[str, set[str]]:
    """Return the imports between the rooms of a package, at run time."""
    graph = grimp.build_graph(package, exclude_type_checking_imports=True)
    found = [room for layer in layers(package) for room in layer if room != "errors"]

    def imports(room: str, other: str) -> bool:
        names = {"importer": f"{package}.{room}", "imported": f"{package}.{other}"}
        return room != other and graph.direct_import_exists(**names, as_packages=True)

    return {room: {other for other in found if imports(room, other)} for room in found}


def direct(imports: dict[str, set[str]], room: str) -> set[str]:
    """Return the imports of a room that do not follow from its other imports."""
    return {other for other in imports[room] if not any(other in reach(imports, third) for third in imports[room])}


def reach(imports: dict[str, set[str]], room: str) -> set[str]:
    """Return what a room imports, directly or through others."""
    return {found for other in imports[room] for found in (other, *reach(imports, other))}


def picture() -> str:
    """Return the picture as SVG: the rooms on the left, the way of a row on the right."""
    matplotlib.rcParams |= {"svg.hashsalt": "architecture", "svg.fonttype": "none", "font.family": "sans-serif"}
    figure = Figure(figsize=(13, 8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    rooms, stages = imports_of(ETL), list(LINEAGE)
    rows = [[room for room in layer if room in rooms] for layer in layers(ETL)]
    arrows = [(room, other) for room in rooms for other in sorted(direct(rooms, room))]
    draw(left, {room: place for y, row in enumerate(filter(None, rows)) for room, place in spread(row, -y)}, arrows)
    boxes = {stage: (0.0, -float(y)) for y, stage in enumerate(stages)}
    writes = {stage: ", ".join(t for t in LINEAGE[stage][1] if t != "rejects") or "rejects" for stage in stages}
    draw(right, boxes, list(pairwise(stages)))
    for stage, (_, y) in boxes.items():
        right.annotate(writes[stage], (0.62, y), va="center", fontsize=9, color="#555")
    right.set_xlim(-0.6, 3.2)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def spread(names: list[str], y: float) -> list[tuple[str, tuple[float, float]]]:
    """Return a place for each name of a row, centred."""
    gap = 1.0 if len(names) < 3 else 1.3  # so that no arrow runs through a box between two rows
    return [(name, (gap * (i - (len(names) - 1) / 2), y)) for i, name in enumerate(names)]


def draw(axes: Any, boxes: dict[str, tuple[float, float]], arrows: list[tuple[str, str]]) -> None:
    """Draw boxes with arrows between them."""
    for before, after in arrows:
        style = {"arrowstyle": "-|>", "color": "#8aa", "shrinkA": 14, "shrinkB": 14}
        axes.annotate("", boxes[after], boxes[before], arrowprops=style)
    for name, (x, y) in boxes.items():
        box = {"boxstyle": "round,pad=0.5", "facecolor": "#e8f4f2", "edgecolor": "#00796b"}
        axes.text(x, y, name, ha="center", va="center", bbox=box, fontsize=11)
    xs, ys = zip(*boxes.values(), strict=True)
    axes.set(xlim=(min(xs) - 0.6, max(xs) + 0.6), ylim=(min(ys) - 0.5, max(ys) + 0.5))
    axes.axis("off")


def table(package: str) -> str:
    """Return the rooms of a package with what lives in them, and their modules."""
    lines = ["| room | what lives there | modules |", "|---|---|---|"]
    for room in (room for layer in layers(package) for room in layer):
        place = FOLDERS[package] / room
        inside = sorted(p for p in place.rglob("*.py") if p.name not in ("__init__.py", "__main__.py"))
        names = ", ".join(f"`{p.relative_to(place).with_suffix('')}`" for p in inside)
        lines.append(f"| `{room}` | {purpose(place)} | {names} |")
    return "\n".join(lines)


def purpose(place: Path) -> str:
    """Return the first paragraph of a room's README, or of its docstring."""
    readme = place / "README.md"
    if readme.is_file():
        text = readme.read_text(encoding="utf-8").partition("\n")[2]
    else:
        module = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return " ".join(text.strip().partition("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")
