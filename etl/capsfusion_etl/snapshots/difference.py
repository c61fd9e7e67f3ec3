"""Compare two snapshots from their own files: by DuckDB if they are on this machine, else by Spark."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from pyspark.errors import PySparkException

from capsfusion_etl.errors import InputError, first_line
from capsfusion_etl.lake.run import Run
from capsfusion_etl.snapshots.catalog import find, rows_of
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.tables import plain_literal

_BOTH = "FROM before FULL OUTER JOIN after ON before.pair_id = after.pair_id"
_COUNTS = f"""SELECT count_if(before.pair_id IS NULL), count_if(after.pair_id IS NULL),
count_if(before.caption <> after.caption), count_if(before.caption = after.caption) {_BOTH}"""
_EXAMPLES = f"""SELECT before.pair_id, before.caption, after.caption {_BOTH}
WHERE before.caption <> after.caption ORDER BY before.pair_id LIMIT """
Ask = Callable[[str], list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference between two snapshots: numbers of pairs added, removed, with a changed and with the same caption."""

    added: int
    removed: int
    changed: int
    kept: int
    examples: tuple[tuple[str, str, str], ...]  # changed pairs: pair_id, caption before, caption now


def diff(run: Run, before: str, now: str, *, limit: int = 5) -> Difference:
    """Compare two snapshots row by row, by pair_id.

    Args:
        run: the run.
        before: name of the older snapshot.
        now: name of the newer snapshot.
        limit: most examples to return.

    Raises:
        InputError: a snapshot does not exist, or files of it are missing or damaged.
    """
    snapshots = {"before": find(run, before), "after": find(run, now)}
    for manifest in snapshots.values():
        if gone := manifest.missing():
            more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
            raise InputError(
                f"snapshot {manifest.name} is broken: {', '.join(gone[:3])}{more} missing from the table: "
                "was it vacuumed?"
            )
    with _by_duckdb(snapshots) if run.lake.is_local and find_spec("duckdb") else _by_spark(run, snapshots) as ask:
        [(added, removed, changed, kept)] = ask(_COUNTS)
        examples = ask(f"{_EXAMPLES}{limit}") if changed else []
    return Difference(added, removed, changed, kept, tuple((pair_id, old, new) for pair_id, old, new in examples))


@contextmanager
def _by_duckdb(snapshots: dict[str, Manifest]) -> Iterator[Ask]:
    import duckdb

    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    for name, manifest in snapshots.items():
        files = ", ".join(plain_literal(str(manifest.locate(file))) for file in manifest.files)
        with _readable(manifest, duckdb.Error):
            connection.execute(f"CREATE VIEW {name} AS SELECT pair_id, caption FROM read_parquet([{files}])")
            connection.execute(f"SELECT max(pair_id), max(caption) FROM {name}")
    yield lambda query: connection.execute(query).fetchall()


@contextmanager
def _by_spark(run: Run, snapshots: dict[str, Manifest]) -> Iterator[Ask]:
    spark = run.lake.spark
    for name, manifest in snapshots.items():
        with _readable(manifest, PySparkException):
            rows = rows_of(run, manifest).select("pair_id", "caption")
            rows.agg({"pair_id": "max", "caption": "max"}).collect()
            rows.createOrReplaceTempView(name)
    try:
        yield lambda query: [tuple(row) for row in spark.sql(query).collect()]
    finally:
        for name in snapshots:
            spark.catalog.dropTempView(name)


@contextmanager
def _readable(manifest: Manifest, failure: type[Exception]) -> Iterator[None]:
    """Read a snapshot in this block, so that the message of a failure names it."""
    try:
        yield
    except failure as error:
        raise InputError(f"snapshot {manifest.name} cannot be read: {first_line(str(error))}") from None
