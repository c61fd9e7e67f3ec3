"""Append scores to the lake's table `evaluations`, so that strategies and scales can be compared in SQL.

Written with delta-rs, since the trainer has no Spark.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from capsfusion_etl.errors import InputError
from capsfusion_etl.storage import as_path
from capsfusion_etl.tables import EVALUATIONS
from capsfusion_etl.tables.arrow import arrow_schema
from deltalake import write_deltalake


@dataclass(frozen=True, slots=True)
class Origin:
    """Origin of a model, from the complete.json that `capsfusion train` writes beside it; None where unknown."""

    snapshot: str | None = None
    manifest_sha256: str | None = None
    strategy: str | None = None
    recipe: str | None = None
    step: int | None = None
    pairs_seen: int | None = None
    seed: int | None = None

    @classmethod
    def of(cls, model: Path) -> Self:
        """Return the origin of the model in the folder `model`; all None if no complete.json is beside it."""
        path = model.parent / "complete.json"
        if not path.is_file():
            return cls()
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{name: said.get(name) for name in cls.__slots__})


def check_lake(lake: str) -> None:
    """Check that scores can be appended, before the work that makes them.

    Raises:
        InputError: `lake` is not a lake.
    """
    if not (as_path(lake) / "training_pairs").is_dir():
        raise InputError(f"there is no lake at {lake}")


def record(
    lake: str, benchmark: str, model: Path | None, scores: dict[str, dict[str, float]], origin: Origin | None = None
) -> int:
    """Append `domain -> metric -> value` to the lake's evaluations; return the number of rows.

    Args:
        lake: Folder or URL of the lake.
        benchmark: Name of the benchmark.
        model: Folder of the model, or None for predictions of unknown origin.
        scores: The values by domain and metric.
        origin: Of the model; by default what is written beside it.

    Raises:
        InputError: `lake` is not a lake.
    """
    check_lake(lake)
    now = datetime.now(UTC)
    origin = origin or (Origin.of(model) if model else Origin())
    about = {"model": str(model) if model else None, **asdict(origin)}
    rows = [
        {**about, "benchmark": benchmark, "domain": domain, "metric": metric, "value": value, "evaluated_at": now}
        for domain, figures in scores.items()
        for metric, value in figures.items()
    ]
    table = pa.Table.from_pylist(rows, arrow_schema(EVALUATIONS))
    write_deltalake(f"{lake.rstrip('/')}/{EVALUATIONS.name}", table, mode="append")
    return len(rows)
