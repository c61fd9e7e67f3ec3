"""Show which caption strategy wins at which scale: train one recipe on each strategy's snapshot, score and plot.

The plot is that of CapsFusion's figures 1 and 7: score against pairs seen, one line per strategy.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import write_json

from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.data.pin import newest_passing
from capsfusion_trainer.evaluation.captions import benchmark_captions
from capsfusion_trainer.evaluation.coco import scores
from capsfusion_trainer.evaluation.held_out import evaluate
from capsfusion_trainer.evaluation.record import record
from capsfusion_trainer.evaluation.references import References
from capsfusion_trainer.model.decoding import Decoding
from capsfusion_trainer.train import train
from capsfusion_trainer.training.distributed import World, init_distributed
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


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Reference captions of the images in a folder, and how many tokens a caption may have (None: the default)."""

    references: References
    images: Path
    max_new_tokens: int | None = None

    def fingerprint(self) -> str:
        """Return a hash of all that the scores depend on, but the model."""
        said = json.dumps([asdict(self.references), str(self.images), self.max_new_tokens], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()


def compare(
    lake: str, grid: Grid, config: TrainerConfig, out: Path, benchmark: Benchmark | None = None
) -> list[Result]:
    """Train and score every combination; finished runs and their scores are not repeated.

    Writes results.json, results.md and results.svg to `out`, and appends new scores to the lake's `evaluations`. Under
    torchrun, all ranks train and caption, and the first one writes.

    Args:
        lake: Folder of the lake, with a snapshot of each strategy.
        grid: The combinations.
        config: Settings of every run; `steps` and `seed` are replaced.
        out: Folder of the runs and results.
        benchmark: If given, also score captions by CIDEr-D. The loss on each snapshot's own held-out images is always
            compared, if it has any.

    Raises:
        InputError: A strategy has no snapshot.
    """
    manifests = {strategy: newest(lake, strategy) for strategy in grid.strategies}
    cells = [(s, pairs, seed) for s in grid.strategies for pairs in grid.scales for seed in grid.seeds]
    results: list[Result] = []
    with init_distributed(config.timeout_s) as world:
        for strategy, pairs, seed in cells:
            folder = out / f"{strategy}-{pairs}-{seed}"
            steps = math.ceil(pairs / config.global_batch_size)
            train(replace(config, steps=steps, seed=seed), manifests[strategy], folder)
            found = _scored(manifests[strategy], folder, benchmark, lake, world)
            results += [Result(strategy, pairs, seed, metric, value) for metric, value in found.items()]
            if world.first and found:
                print(f"{folder.name}: {results[-1].metric} {results[-1].value:.4f}", flush=True)
        if world.first:
            write_json(out / "results.json", [asdict(result) for result in results])
            (out / "results.md").write_text(as_table(results), encoding="utf-8")
            plot(results, out / "results.svg")
    return results


def _scored(manifest: Manifest, folder: Path, benchmark: Benchmark | None, lake: str, world: World) -> dict[str, float]:
    """Return the scores of a finished run; they are kept in its folder, and appended to the lake when they are new."""
    key, path = benchmark.fingerprint() if benchmark else "held out", folder / "scores.json"
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known = world.broadcast(kept.get(key))
    if known is not None:
        return dict(known)
    loss = evaluate(manifest, folder)["loss"]
    found = {} if loss is None else {LOSS: loss}
    if benchmark is not None:
        ids = list(benchmark.references.captions)
        model = load(folder / "model", world.device)
        decoding = Decoding.benchmark(model, max_new_tokens=benchmark.max_new_tokens)
        paths = [benchmark.images / benchmark.references.files[i] for i in ids]
        made = benchmark_captions(model, paths, decoding, world)
        found[CIDER] = scores(benchmark.references, dict(zip(ids, made, strict=True)))["all"][CIDER]
    world.together(lambda: _keep(lake, folder, kept | {key: found}, found) if world.first else None)
    return found


def _keep(lake: str, folder: Path, scores: dict[str, Any], new: dict[str, float]) -> None:
    write_json(folder / "scores.json", scores)  # first: scores are better missing in the lake than there twice
    record(lake, "compare", folder / "model", {"all": new})


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
