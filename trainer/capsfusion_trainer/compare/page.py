"""Show results: as Markdown, and as one HTML page with a line and a band for each strategy."""

import html
import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from capsfusion_trainer.compare.bootstrap import Interval
from capsfusion_trainer.compare.results import Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

Table = tuple[str, list[str], list[list[str]]]  # caption, head, rows
_ABOUT = (
    "In brackets 95 % intervals of a paired bootstrap over pictures (or lines of a text) and seeds; d is the effect "
    "size: the mean difference over pictures, divided by its standard deviation."
)
_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; color: #1c2230; max-width: 1080px; margin: 2rem auto }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin: 2.4rem 0 .4rem } svg { max-width: 100%; height: auto }
table { border-collapse: collapse; margin: .4rem 0 1rem } caption { text-align: left; color: #667085 }
th, td { padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #e4e7ec; text-align: left; white-space: nowrap }
.wide { overflow-x: auto }"""


def markdown(found: Sequence[Section]) -> str:
    """Return the tables of all sections."""
    lines = [_ABOUT, ""]
    for section in found:
        lines += [f"## {section.title}", ""]
        for caption, head, rows in _tables(section):
            lines += [f"{caption}:", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
            lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join(lines)


def page(found: Sequence[Section], title: str, about: str) -> str:
    """Return an HTML page that needs no other file; `about` tells what is compared."""
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(about)} {html.escape(_ABOUT)}</p>", picture(found)]
    for section in found:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        parts += [_html(table) for table in _tables(section)]
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{_STYLE}\n</style>\n" + "\n".join(parts) + "\n</html>\n"
    )


def picture(found: Sequence[Section]) -> str:
    """Return an SVG with a panel for each section: score against pairs seen, as in CapsFusion's figures 1 and 7."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = min(3, max(1, len(found)))
    rows = max(1, math.ceil(len(found) / columns))
    with mpl.rc_context({"svg.hashsalt": "capsfusion", "svg.fonttype": "none"}):
        figure = Figure(figsize=(4.6 * columns, 3.6 * rows), layout="constrained")
        lines: dict[str, Line2D] = {}
        for number, section in enumerate(found, 1):
            lines |= _panel(figure.add_subplot(rows, columns, number), section)
        figure.legend(list(lines.values()), list(lines), loc="outside upper left", ncols=len(lines), frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue().partition("<!DOCTYPE")[2].partition(">")[2].strip()


def _panel(axes: "Axes", section: Section) -> "dict[str, Line2D]":
    """Draw a section; return the line of each strategy."""
    lines = {}
    for name, line in section.lines.items():
        [lines[name]] = axes.plot(section.scales, [at.value for at in line], marker="o")
        low, high = [at.low for at in line], [at.high for at in line]
        axes.fill_between(section.scales, low, high, alpha=0.15, color=lines[name].get_color())
    axes.set(xscale="log", xlabel="pairs seen", title=section.title)
    axes.set_xticks(section.scales, [f"{scale:,}" for scale in section.scales])
    axes.minorticks_off()
    axes.title.set_fontsize(10)
    return lines


def _tables(section: Section) -> Iterator[Table]:
    head = ["strategy", *(f"{pairs:,} pairs" for pairs in section.scales)]
    yield "Score", head, [[name, *map(_said, line)] for name, line in section.lines.items()]
    if section.differences:
        yield f"Difference to {section.against}", head, [
            [name, *(f"{_said(at.interval, sign='+')}, d {at.effect:+.2f}" for at in line)]
            for name, line in section.differences.items()
        ]  # fmt: skip
    if section.slopes:
        better = " (below 0 is better)" if section.lower_is_better else ""
        head = ["strategy", "gain", f"difference to {section.against}"]
        yield f"Gain for each doubling of the pairs{better}", head, [
            [name, _said(gain, sign="+"), _said(section.slope_differences[name], sign="+") if name in
             section.slope_differences else ""] for name, gain in section.slopes.items()
        ]  # fmt: skip


def _said(at: Interval, sign: str = "") -> str:
    if math.isnan(at.value):
        return "–"
    return f"{at.value:{sign}.3f} [{at.low:{sign}.3f}, {at.high:{sign}.3f}]"


def _html(table: Table) -> str:
    caption, head, rows = table
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><caption>{html.escape(caption)}</caption><tr>{cells}</tr>{body}</table></div>'
