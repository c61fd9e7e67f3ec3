"""The hypotheses of docs/claim.md, decided by the 95 % intervals of the comparison. Written before the first run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from capsfusion_trainer.compare.bootstrap import Array, Bootstrap, Interval, interval, slope
from capsfusion_trainer.compare.grid import Cell, Grid
from capsfusion_trainer.compare.results import arm_of
from capsfusion_trainer.compare.score import SEEN, Score

NAMING, GENERIC, NAMES = ("naming", "CIDEr-D"), ("generic", "CIDEr-D"), ("names", SEEN)
AS_GOOD = 0.9  # share of the other's score that is "as good"
Scores = Mapping[Cell, Sequence[Score]]
Means = Callable[[str, int], Array]  # strategy and scale -> its mean in each draw


@dataclass(frozen=True, slots=True)
class Decision:
    """A hypothesis, a figure that is above 0 if it holds, and what its interval says."""

    claim: str
    figure: Interval

    @property
    def verdict(self) -> str:
        """Return "holds" or "fails" if the whole interval says so, else "undecided"."""
        return "holds" if self.figure.low > 0 else "fails" if self.figure.high < 0 else "undecided"


def decisions(scores: Mapping[str, Scores], grid: Grid) -> list[Decision]:
    """Return the decisions; `scores` are those of the models "frozen" and "fired"."""
    scales = sorted(grid.scales)
    first, last = scales[0], scales[-1]
    naming, names, generic = (_means(scores["frozen"], grid, kind) for kind in (NAMING, NAMES, GENERIC))

    def gain(strategy: str) -> Array:
        return slope(scales, [naming(strategy, scale) for scale in scales])

    found = {
        f"H1a: fused > synthetic in CIDEr-D of naming references at {last:,} pairs":
            naming("fused", last) - naming("synthetic", last),
        f"H1b: fused > synthetic in clozes of names, beyond the prompt, at {last:,} pairs":
            names("fused", last) - names("synthetic", last),
        f"H2: synthetic is as good as fused in CIDEr-D of generic references at {first:,} pairs":
            generic("synthetic", first) - AS_GOOD * generic("fused", first),
        "H3: CIDEr-D of naming references grows faster with fused": gain("fused") - gain("synthetic"),
        f"H4a: firing costs synthetic more in CIDEr-D of naming references at {last:,} pairs":
            _firing(scores, grid, NAMING, last),
        f"H4b: firing costs synthetic more in clozes of names, beyond the prompt, at {last:,} pairs":
            _firing(scores, grid, NAMES, last),
    }  # fmt: skip
    return [Decision(claim, interval(figure)) for claim, figure in found.items()]


def _firing(scores: Mapping[str, Scores], grid: Grid, kind: tuple[str, str], scale: int) -> Array:
    """Return what firing gains with fused, minus what it gains with synthetic."""
    frozen, fired = (_means(scores[how], grid, kind) for how in ("frozen", "fired"))
    gains = {strategy: fired(strategy, scale) - frozen(strategy, scale) for strategy in ("fused", "synthetic")}
    return gains["fused"] - gains["synthetic"]


def _means(scores: Scores, grid: Grid, kind: tuple[str, str]) -> Means:
    """Return the means of a metric, in draws that are the same for all strategies, scales and models."""
    mine = {cell: [s for s in found if (s.benchmark, s.metric) == kind] for cell, found in scores.items()}
    units = {unit: n for n, unit in enumerate(sorted({s.unit for found in mine.values() for s in found}))}
    draws = Bootstrap(len(grid.seeds), len(units))

    def means(strategy: str, scale: int) -> Array:
        return draws.means(arm_of([mine[Cell(strategy, scale, seed)] for seed in grid.seeds], units))

    return means


def write(found: Sequence[Decision], path: Path) -> str:
    """Write the decisions as a Markdown table; return it."""
    lines = ["| hypothesis | figure | |", "|---|---|---|"]
    for decision in found:
        at = decision.figure
        lines.append(f"| {decision.claim} | {at.value:+.3f} [{at.low:+.3f}, {at.high:+.3f}] | {decision.verdict} |")
    text = "\n".join(lines) + "\n"
    path.write_text(text, encoding="utf-8")
    return text
