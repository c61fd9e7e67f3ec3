"""The main flow of a comparison: train each run, score each cell, write the results."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.address import newer_refused, newest_passing
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import write_whole

from capsfusion_trainer.compare import store
from capsfusion_trainer.compare.grid import Cell, Grid, check, steps
from capsfusion_trainer.compare.page import markdown, page
from capsfusion_trainer.compare.results import Section, sections
from capsfusion_trainer.compare.score import Score, score
from capsfusion_trainer.compare.store import Files
from capsfusion_trainer.compare.suite import Suite
from capsfusion_trainer.compare.tokenizer import shared_tokenizer
from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.data.snapshot import Split
from capsfusion_trainer.evaluation.record import Origin, record
from capsfusion_trainer.train import train
from capsfusion_trainer.training.distributed import World, init_distributed
from capsfusion_trainer.training.export import load

T = TypeVar("T")
_COPIES = 4  # of the images, while they are ordered, and room for the model


def compare(
    lake: str, grid: Grid, config: TrainerConfig, out: Path, suite: Suite, *, against: str | None = None
) -> list[Section]:
    """Train and score every combination; finished runs and scored cells are not repeated.

    Several machines may share a grid: a run of which only the scores are here (`RUN/scored-*`) was trained elsewhere,
    on the same captions, with the same settings, and scored on the same benchmarks (see `store.files_of`).

    Writes results.md and results.html to `out`, and the Delta tables `scores` (a row for each picture and metric) and
    `captions`; appends the means of new cells to the lake's `evaluations`. Under torchrun, all ranks train and caption,
    and the first one writes. The small language model gets a tokenizer of subwords, trained on the captions of all
    strategies, and the features of a frozen vision tower are computed once.

    Args:
        lake: Folder of the lake, with a snapshot of each strategy.
        grid: The combinations.
        config: Settings of every run; `steps` and `seed` are replaced.
        out: Folder of the runs and results.
        suite: What the models are scored on.
        against: Strategy that the others are compared with; by default the first one.

    Raises:
        InputError: A strategy has no snapshot, the snapshots hold different pairs, or a part of the pairs is to be
            seen and all of them do not fit into memory.
    """
    against = against or grid.strategies[0]
    if against not in grid.strategies:
        raise InputError(f"--against {against}: is none of --strategies {', '.join(grid.strategies)}")
    with init_distributed(config.timeout_s) as world:
        manifests = _from_first(world, lambda: _checked(lake, grid, config))
        config = _from_first(world, lambda: _shared(config, manifests, grid, out))
        files = _from_first(world, lambda: store.files_of(out, grid, suite, config, manifests))
        brought = _from_first(
            world, lambda: [run for run in grid.runs() if store.was_brought(run, out / run.name, files)]
        )
        for run in grid.runs():
            folder, last, batch = out / run.name, run.last, config.global_batch_size
            mine = replace(config, steps=steps(last.pairs, batch), seed=last.seed)
            if run not in brought:
                train(mine, manifests[last.strategy], folder, along=run.along(batch))
            for cell in run.cells:
                _score(cell, run.model(folder, cell, batch), suite, files[cell], lake, world)
        return _from_first(world, lambda: _written(files, manifests, out, grid, against))


def _from_first(world: World, work: Callable[[], T]) -> T:
    """Return what rank 0 makes of `work`, on every rank."""
    found: T = world.broadcast(world.together(lambda: work() if world.first else None))
    return found


def _checked(lake: str, grid: Grid, config: TrainerConfig) -> dict[str, Manifest]:
    manifests = {strategy: newest(lake, strategy) for strategy in grid.strategies}
    check(grid, manifests, config.global_batch_size)
    return manifests


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
    if refused := newer_refused(lake, found):
        print(
            f"strategy {strategy}: its newest snapshot {refused.name} did not pass its gate "
            f"({'; '.join(refused.gate.failures[:1])}); the one before, {found.name} (version {found.version}), is used"
        )
    return found


def _shared(config: TrainerConfig, manifests: Mapping[str, Manifest], grid: Grid, out: Path) -> TrainerConfig:
    """Return the settings of all runs: the same order of pairs, tokenizer and cached features.

    Raises:
        InputError: The pairs do not fit into memory, where they are ordered, and a scale takes a part of them.
    """
    size = max(sum(file.size for file in manifest.files) for manifest in manifests.values())
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # each holds its own
    fits = size * _COPIES * ranks < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    rows = min(Split(manifest, "train").rows for manifest in manifests.values())
    if not fits and any(scale % rows for scale in grid.scales):
        raise InputError(
            f"{size / 1e9:,.0f} GB of pairs, held {_COPIES} times, do not fit into memory. Unsorted, the strategies "
            f"would see different ones of the {rows:,} pairs: choose --scales {rows}, publish smaller snapshots, or "
            "take a machine with more memory"
        )
    config = replace(config, sorted_pairs=fits, workers=0 if fits else config.workers)
    if config.llm_model is None and config.tokenizer is None:
        config = replace(config, tokenizer=str(shared_tokenizer(manifests.values(), out.absolute() / "tokenizer")))
    if config.freeze_vision and config.feature_cache is None and not config.shard:
        config = replace(config, feature_cache=str(out.absolute() / "features"))
    return config


def _score(cell: Cell, model: Path, suite: Suite, files: Files, lake: str, world: World) -> None:
    """Score a cell, unless it is done: its file of scores is written last."""
    if world.broadcast(files.scores.is_file()):
        return
    found, said = score(load(model, world.device), suite, world)
    world.together(lambda: _keep(cell, model, found, said, files, lake) if world.first else None)


def _keep(cell: Cell, model: Path, found: list[Score], said: dict[str, str], files: Files, lake: str) -> None:
    means: dict[str, dict[str, float]] = {}
    for kind in dict.fromkeys((s.benchmark, s.metric) for s in found):
        means.setdefault(kind[0], {})[kind[1]] = _mean([s for s in found if (s.benchmark, s.metric) == kind])
    store.keep(files, found, said)
    made = Origin.of(files.scores.parent.parent / "model")  # of the run: its checkpoints along the way have none
    origin = replace(made, strategy=cell.strategy, pairs_seen=cell.pairs, seed=cell.seed, step=_step_of(model, made))
    for benchmark, figures in means.items():  # scores are better missing in the lake than there twice
        record(lake, benchmark, model, {"all": figures}, origin)
    told = ", ".join(f"{name} {value:.3f}" for figures in means.values() for name, value in figures.items())
    print(f"{cell.name}: {told}", flush=True)


def _step_of(model: Path, run: Origin) -> int | None:
    return int(model.name) if model.name.isdigit() else run.step


def _mean(scores: list[Score]) -> float:
    return fmean([s.value for s in scores], [s.weight for s in scores])


def _written(
    files: Mapping[Cell, Files], manifests: Mapping[str, Manifest], out: Path, grid: Grid, against: str
) -> list[Section]:
    """Write the tables and the page; return the sections."""
    store.write_tables(files, out)
    found = sections(grid, {cell: store.read(mine) for cell, mine in files.items()}, against)
    how = "checkpoints of one run" if grid.along else "a run of each scale"
    title = f"{', '.join(grid.strategies)}: {how}, {len(grid.seeds)} seed{'s' * (len(grid.seeds) > 1)}"
    compared = [
        f"{'' if m.name == strategy else f'{strategy}: '}{m.name} (version {m.version})"
        for strategy, m in manifests.items()
    ]
    about = f"Snapshots: {', '.join(compared)}."
    write_whole(out / "results.md", f"# {title}\n\n{about}\n\n{markdown(found)}")
    write_whole(out / "results.html", page(found, title, about))
    return found
