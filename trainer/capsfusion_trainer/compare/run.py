"""The main flow of a comparison: train each run, score each cell, write the results."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pyarrow as pa
import pyarrow.parquet as pq
from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.manifest import Manifest
from deltalake import write_deltalake

from capsfusion_trainer.compare.grid import Cell, Grid, check, model_of, steps
from capsfusion_trainer.compare.page import markdown, page
from capsfusion_trainer.compare.results import Section, sections
from capsfusion_trainer.compare.score import Score, score
from capsfusion_trainer.compare.suite import Suite
from capsfusion_trainer.compare.tokenizer import shared_tokenizer
from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.data.pin import newest_passing
from capsfusion_trainer.evaluation.record import record
from capsfusion_trainer.train import train
from capsfusion_trainer.training.distributed import World, init_distributed
from capsfusion_trainer.training.export import load

_SCORES = pa.schema(
    [("benchmark", pa.string()), ("metric", pa.string()), ("unit", pa.string()), ("value", pa.float64()),
     ("weight", pa.float64())]
)  # fmt: skip
_CAPTIONS = pa.schema([("unit", pa.string()), ("caption", pa.string())])


def compare(
    lake: str, grid: Grid, config: TrainerConfig, out: Path, suite: Suite, *, against: str | None = None
) -> list[Section]:
    """Train and score every combination; finished runs and scored cells are not repeated.

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
        InputError: A strategy has no snapshot, or the snapshots hold different pairs.
    """
    against = against or grid.strategies[0]
    if against not in grid.strategies:
        raise InputError(f"--against {against}: is none of --strategies {', '.join(grid.strategies)}")
    manifests = {strategy: newest(lake, strategy) for strategy in grid.strategies}
    with init_distributed(config.timeout_s) as world:
        world.together(lambda: check(grid, manifests) if world.first else None)
        config = _shared(config, manifests, out, world)
        for last, cells in grid.runs():
            run, batch = out / last.name, config.global_batch_size
            along = [steps(cell.pairs, batch) for cell in cells if cell != last]
            mine = replace(config, steps=steps(last.pairs, batch), seed=last.seed)
            train(mine, manifests[last.strategy], run, along=along)
            for cell in cells:
                _score(cell, model_of(run, cell, last, batch), suite, lake, out, world)
        found = sections(grid, _scores(out, suite, grid), against)
        if world.first:
            _write(found, out, suite, grid)
    return found


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


def _shared(config: TrainerConfig, manifests: Mapping[str, Manifest], out: Path, world: World) -> TrainerConfig:
    """Return the settings of all runs: the same order of pairs, tokenizer and cached features."""
    config = replace(config, sorted_pairs=True)
    if config.llm_model is None and config.tokenizer is None:
        folder = out.absolute() / "tokenizer"
        world.together(lambda: shared_tokenizer(manifests.values(), folder) if world.first else None)
        config = replace(config, tokenizer=str(folder))
    if config.freeze_vision and config.feature_cache is None and not config.shard:
        config = replace(config, feature_cache=str(out.absolute() / "features"))
    return config


def _score(cell: Cell, model: Path, suite: Suite, lake: str, out: Path, world: World) -> None:
    """Score a cell, unless it is done: its file of scores is written last."""
    scores, captions = _files(out, cell, suite)
    if world.broadcast(scores.is_file()):
        return
    found, said = score(load(model, world.device), suite, world)
    if world.first:
        scores.parent.mkdir(parents=True, exist_ok=True)
        _put(pa.Table.from_pylist([{"unit": u, "caption": c} for u, c in said.items()], _CAPTIONS), captions)
        means: dict[str, dict[str, float]] = {}
        for kind in dict.fromkeys((s.benchmark, s.metric) for s in found):
            means.setdefault(kind[0], {})[kind[1]] = _mean([s for s in found if (s.benchmark, s.metric) == kind])
        _put(pa.Table.from_pylist([s._asdict() for s in found], _SCORES), scores)
        for benchmark, figures in means.items():  # scores are better missing in the lake than there twice
            record(lake, benchmark, model, {"all": figures})
        told = ", ".join(f"{name} {value:.3f}" for figures in means.values() for name, value in figures.items())
        print(f"{cell.name}: {told}", flush=True)


def _mean(scores: list[Score]) -> float:
    return fmean([s.value for s in scores], [s.weight for s in scores])


def _files(out: Path, cell: Cell, suite: Suite) -> tuple[Path, Path]:
    folder = out / f"scored-{suite.fingerprint()}"
    return folder / f"{cell.name}.parquet", folder / f"{cell.name}.captions.parquet"


def _put(table: pa.Table, path: Path) -> None:
    part = path.with_suffix(".part")
    pq.write_table(table, part)
    part.replace(path)


def _scores(out: Path, suite: Suite, grid: Grid) -> dict[Cell, list[Score]]:
    tables = {cell: pq.read_table(_files(out, cell, suite)[0], schema=_SCORES) for cell in grid.cells()}
    return {cell: [Score(**row) for row in table.to_pylist()] for cell, table in tables.items()}


def _write(found: list[Section], out: Path, suite: Suite, grid: Grid) -> None:
    for name, number in (("scores", 0), ("captions", 1)):
        parts = [_named(pq.read_table(_files(out, cell, suite)[number]), cell) for cell in grid.cells()]
        write_deltalake(out / name, pa.concat_tables(parts), mode="overwrite", schema_mode="overwrite")
    how = "checkpoints of one run" if grid.along else "a run of each scale"
    title = f"{', '.join(grid.strategies)}: {how}, {len(grid.seeds)} seed{'s' * (len(grid.seeds) > 1)}"
    (out / "results.md").write_text(f"# {title}\n\n{markdown(found)}", encoding="utf-8")
    (out / "results.html").write_text(page(found, title), encoding="utf-8")


def _named(table: pa.Table, cell: Cell) -> pa.Table:
    """Return a table with the columns of its cell in front."""
    columns = {"strategy": pa.string(), "pairs": pa.int64(), "seed": pa.int64()}
    for at, (name, kind) in enumerate(columns.items()):
        values = pa.array([getattr(cell, name)] * table.num_rows, kind)
        table = table.add_column(at, name, values)
    return table
