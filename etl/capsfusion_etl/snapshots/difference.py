"""Compare two snapshots from their own files, held or in the table."""

from dataclasses import dataclass

from capsfusion_etl.errors import InputError
from capsfusion_etl.lake.run import Run
from capsfusion_etl.queries import queries
from capsfusion_etl.snapshots.catalog import as_table, find

_BOTH = "FROM before FULL OUTER JOIN after ON before.pair_id = after.pair_id"
_COUNTS = f"""SELECT count_if(before.pair_id IS NULL) AS added, count_if(after.pair_id IS NULL) AS removed,
count_if(before.caption <> after.caption) AS changed, count_if(before.caption = after.caption) AS kept {_BOTH}"""
_EXAMPLES = f"""SELECT before.pair_id AS pair_id, before.caption AS old, after.caption AS new {_BOTH}
WHERE before.caption <> after.caption ORDER BY before.pair_id LIMIT """


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
    with queries(run.lake) as ask:
        for name, manifest in snapshots.items():
            as_table(ask, name, manifest, "pair_id", "caption")
        [counts] = ask.rows(_COUNTS)
        examples = ask.rows(f"{_EXAMPLES}{limit}") if counts["changed"] else []
    return Difference(**counts, examples=tuple((row["pair_id"], row["old"], row["new"]) for row in examples))
