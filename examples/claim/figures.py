"""The figures of a study beside its hypotheses: every model's means as a CSV file, and a table of means over seeds."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from hypotheses import Scores

_MODEL = ["llm", "strategy", "pairs"]
_SHOWN = (
    "naming CIDEr-D", "generic CIDEr-D", "naming entity recall", "names cloze choice accuracy from the picture",
    "captions distinct", "prose loss per token",
)  # fmt: skip


def write(scores: Mapping[str, Scores], folder: Path) -> str:
    """Write models.csv and means.md; return the latter, a row for each strategy, frozen and fired.

    Args:
        scores: Scores of the models "frozen" and "fired".
        folder: Folder of the study.
    """
    found = models(scores)
    found.to_csv(folder / "models.csv", index=False, float_format="%.4f")
    means = found.groupby(_MODEL, sort=False).mean(numeric_only=True)
    lines = [f"| language model, strategy | {' | '.join(_SHOWN)} |", "|---" * (len(_SHOWN) + 1) + "|"]
    for (llm, strategy), mine in means.groupby(["llm", "strategy"], sort=False):
        told = [" -> ".join(f"{value:.3f}" for value in mine[name].sort_index()) for name in _SHOWN]
        lines.append(f"| {llm}, {strategy} | {' | '.join(told)} |")
    text = "\n".join(lines) + "\n"
    (folder / "means.md").write_text(text, encoding="utf-8")
    return text


def models(scores: Mapping[str, Scores]) -> pd.DataFrame:
    """Return a row for each model: llm, strategy, pairs, seed, and the mean of each metric of each benchmark."""
    rows = [
        (llm, cell.strategy, cell.pairs, cell.seed, f"{s.benchmark} {s.metric}", s.value * s.weight, s.weight)
        for llm, cells in scores.items()
        for cell, found in cells.items()
        for s in found
    ]
    key = [*_MODEL, "seed"]
    parts = pd.DataFrame(rows, columns=[*key, "metric", "value", "weight"])
    sums = parts.groupby([*key, "metric"], sort=False).sum()
    means = (sums["value"] / sums["weight"]).rename("mean").reset_index()
    return means.pivot_table("mean", key, "metric", sort=False).reset_index()
