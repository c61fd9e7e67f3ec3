"""The facts of a data card: what the lake knows of the pairs of a snapshot."""

from typing import Any

from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.queries import Queries, queries
from capsfusion_etl.snapshots.catalog import as_table
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.tables import literal

_LICENCES = ("license", "licence", "LICENSE", "License")  # columns of sources
_OF = "LEFT SEMI JOIN published s ON s.pair_id = p.pair_id"
_SOURCES = f"""SELECT p.source AS source, coalesce({", ".join(f"p.extra['{name}']" for name in _LICENCES)}) AS licence,
count(*) AS pairs FROM pairs p {_OF} GROUP BY 1, 2 ORDER BY pairs DESC, source, licence"""
MOST_SOURCES = 20  # sources with their licences that a card names


def pin_of(manifest: Manifest) -> dict[str, Any]:
    """Return what identifies a snapshot, as JSON data."""
    return {
        "name": manifest.name, "manifest_sha256": manifest.sha256(), "table_id": manifest.table_id,
        "version": manifest.version, "strategy": manifest.strategy, "rows": manifest.rows,
    }  # fmt: skip


def facts_of(lake: Lake, manifest: Manifest, contact: str | None = None) -> dict[str, Any]:
    """Return what a card says of a snapshot, as JSON data.

    Args:
        lake: the lake of the snapshot.
        manifest: the snapshot.
        contact: whom to ask for a takedown: an e-mail address or a URL.

    Returns:
        `snapshot`, `strategy`, `rows`, `pin`, `checked_at`, `splits`, `gate` and the `profile` of the manifest;
        `pairs`, the number of pairs in the lake; `funnel`, how many of them each stage rejected and why; `taken_from`
        and `verdicts`, counts of the published captions; `engines`, what made them; `sources` with their licences as
        given, at most 20 and one that tells that there are more; `contact`.

    Raises:
        InputError: a file of the snapshot is missing or damaged.
    """
    with queries(lake, "pairs", "rejects", "fused_captions") as ask:
        as_table(ask, "published", manifest, "pair_id", "caption", "caption_from")
        where = f"f.strategy = {literal(manifest.strategy)}"
        ask.define(
            "made",
            f"""SELECT f.pair_id, f.verdict, f.engine, f.model, row_number() OVER (
            PARTITION BY f.pair_id ORDER BY f.run_id DESC, f.params_hash DESC) AS place FROM fused_captions f
            JOIN published s ON s.pair_id = f.pair_id AND s.caption = f.caption WHERE {where}""",
            once=True,
        )
        made = "FROM made WHERE place = 1 GROUP BY 1"
        splits: dict[str, int] = {}
        for file in manifest.files:
            splits[file.split] = splits.get(file.split, 0) + file.rows
        return {
            "snapshot": manifest.name,
            "strategy": manifest.strategy,
            "rows": manifest.rows,
            "pin": pin_of(manifest),
            "checked_at": manifest.gate.checked_at,
            "splits": splits,
            "gate": {"passed": manifest.gate.passed, "expectations": manifest.gate.expectations},
            "profile": {name: manifest.gate.profile.get(name) for name in ("words", "languages", "entities", "recall")},
            "pairs": int(ask.rows("SELECT count(*) AS pairs FROM pairs")[0]["pairs"]),
            "funnel": [
                [row["stage"], row["reason"], int(row["pairs"])]
                for row in ask.rows("SELECT stage, reason, count(*) AS pairs FROM rejects GROUP BY stage, reason "
                                    "ORDER BY stage, pairs DESC, reason")
            ],
            "taken_from": _counts(ask, "SELECT caption_from AS name, count(*) AS pairs FROM published GROUP BY 1"),
            "verdicts": _counts(ask, f"SELECT verdict AS name, count(*) AS pairs {made}"),
            "engines": _counts(ask, f"SELECT concat(engine, ' ', model) AS name, count(*) AS pairs {made}"),
            "sources": [
                [_public(row["source"]), row["licence"], int(row["pairs"])]
                for row in ask.rows(f"{_SOURCES} LIMIT {MOST_SOURCES + 1}")
            ],
            "contact": contact,
        }  # fmt: skip


def _public(source: str | None) -> str:
    """Return the name of a source; of a path on the machine that read it the last part only."""
    name = source or ""
    return name if "://" in name else name.rstrip("/").rpartition("/")[2]


def _counts(ask: Queries, query: str) -> dict[str, int]:
    """Return name -> number of pairs, the most frequent first."""
    rows = ((str(row["name"]).strip(), int(row["pairs"])) for row in ask.rows(query))
    return dict(sorted(rows, key=lambda one: (-one[1], one[0])))
