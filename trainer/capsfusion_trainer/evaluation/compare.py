"""Show which caption strategy wins at which scale: train one recipe on each strategy's snapshot, score and plot.

The plot is that of CapsFusion's figures 1 and 7: score against pairs seen, one line per strategy.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev

from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import write_json

from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.data.pin import newest_passing
from capsfusion_trainer.evaluation.coco import References, scores
from capsfusion_trainer.evaluation.describe import captions
from capsfusion_trainer.evaluation.held_out import evaluate
from capsfusion_trainer.evaluation.record import record
from capsfusion_trainer.train import train
from capsfusion_trainer.training.export import load

LOSS = "held-out loss"
CIDER = "CIDEr-D"


@dataclass(frozen=True, slots=True)
class Result:
    """Score of one trained model; `pairs` is the number seen in training."""

    strategy: str
    pairs: int
    seed: int
    metric: str
    value: float


def newest(lake: str, strategy: str) -> Manifest:
    """Return the newest snapshot of a strategy that passed its gate.

    Raises:
        InputError: There is no such snapshot.
    """
    found = newest_passing(lake, strategy)
    if found is None:
        raise InputError(
            f"{lake} has no snapshot of strategy {strategy}: "
            f"`capsfusion publish {strategy} --lake {lake} --set publish.strategy={strategy}` makes one"
        )
    return found


@dataclass(frozen=True, slots=True)
class Grid:
    """The combinations to compare; `scales` are numbers of pairs seen in training."""

    strategies: list[str]
    scales: list[int]
    seeds: list[int]


def compare(
    lake: str,
    grid: Grid,
    config: TrainerConfig,
    out: Path,
    references: References | None = None,
    images: Path | None = None,
) -> list[Result]:
    """Train and score every combination; finished training runs are not repeated.

    Writes results.json, results.md and results.svg to `out`, and appends the scores to the lake's `evaluations`.

    Args:
        lake: Folder of the lake, with a snapshot of each strategy.
        grid: The combinations.
        config: Settings of every run; `steps` and `seed` are replaced.
        out: Folder of the runs and results.
        references: If given, also score captions of the images in `images` by CIDEr-D. The loss on each snapshot's own
            held-out images is always compared, if it has any.
        images: Folder of the images of `references`.

    Raises:
        InputError: A strategy has no snapshot.
    """
    manifests = {strategy: newest(lake, strategy) for strategy in grid.strategies}
    results: list[Result] = []
    for strategy, manifest in manifests.items():
        for pairs in grid.scales:
            for seed in grid.seeds:
                folder = out / f"{strategy}-{pairs}-{seed}"
                steps = math.ceil(pairs / config.global_batch_size)
                train(replace(config, steps=steps, seed=seed), manifest, folder)
                for metric, value in _scored(manifest, folder, references, images):
                    results.append(Result(strategy, pairs, seed, metric, value))
                    record(lake, "compare", folder / "model", {"all": {metric: value}})
                print(f"{folder.name}: {results[-1].metric} {results[-1].value:.4f}", flush=True)
    write_json(out / "results.json", [asdict(result) for result in results])
    (out / "results.md").write_text(as_table(results), encoding="utf-8")
    plot(results, out / "results.svg")
    return results


def _scored(
    manifest: Manifest, folder: Path, references: References | None, images: Path | None
) -> Iterator[tuple[str, float]]:
    loss = evaluate(manifest, folder)["loss"]
    if loss is not None:
        yield LOSS, loss
    if references is not None and images is not None:
        ids = list(references.captions)
        made = captions(load(folder / "model"), [images / references.files[i] for i in ids])
        yield CIDER, scores(references, dict(zip(ids, made, strict=True)))["all"][CIDER]


def as_table(results: list[Result]) -> str:
    """Return a Markdown table per metric: a row per strategy, a column per scale; mean ± deviation over seeds."""
    lines = []
    for metric in dict.fromkeys(r.metric for r in results):
        mine = [r for r in results if r.metric == metric]
        scales = sorted({r.pairs for r in mine})
        lines += [f"| {metric} | {' | '.join(f'{s:,} pairs' for s in scales)} |", "|---" * (len(scales) + 1) + "|"]
        for strategy in dict.fromkeys(r.strategy for r in mine):
            cells = [_cell([r.value for r in mine if (r.strategy, r.pairs) == (strategy, s)]) for s in scales]
            lines.append(f"| {strategy} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def plot(results: list[Result], path: Path) -> None:
    """Write an SVG to `path`: score against pairs seen, one panel per metric."""
    from matplotlib.figure import Figure

    metrics = list(dict.fromkeys(r.metric for r in results))
    figure = Figure(figsize=(5 * len(metrics), 4), layout="constrained")
    for number, metric in enumerate(metrics, start=1):
        axes = figure.add_subplot(1, len(metrics), number)
        for strategy in dict.fromkeys(r.strategy for r in results):
            mine = [r for r in results if (r.metric, r.strategy) == (metric, strategy)]
            scales = sorted({r.pairs for r in mine})
            axes.plot(scales, [mean(r.value for r in mine if r.pairs == s) for s in scales], marker="o", label=strategy)
        axes.set(xscale="log", xlabel="pairs seen", ylabel=metric)
        axes.legend()
    figure.savefig(path)
