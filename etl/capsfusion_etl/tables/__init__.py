"""The tables of a lake: names, keys, columns, and the reasons for rejecting a pair. Pure: no Spark, no I/O.

`quality`, `trainer` and SQL users rely on this contract.
"""

from capsfusion_etl.tables.data import (
    FUSED_CAPTIONS,
    IMAGES,
    LEDGER,
    NEAR_CLUSTERS,
    NEAR_EDGES,
    OPINIONS,
    PAIRS,
    REJECTS,
    SKETCHES,
    SYNTHETIC_CAPTIONS,
    TRAINING_PAIRS,
)
from capsfusion_etl.tables.reasons import REJECT_REASONS, STAGES
from capsfusion_etl.tables.records import (
    ALARMS,
    BATCHES,
    EVALUATIONS,
    QUALITY_RESULTS,
    RUNS,
    SNAPSHOTS,
    SPEND,
    TAKEDOWNS,
)
from capsfusion_etl.tables.table import VERSION, VERSION_PROPERTY, Table, identifier, literal, plain_literal

__all__ = [
    "ALARMS",
    "BATCHES",
    "EVALUATIONS",
    "FUSED_CAPTIONS",
    "GATED",
    "IMAGES",
    "LEDGER",
    "NEAR_CLUSTERS",
    "NEAR_EDGES",
    "OPINIONS",
    "PAIRS",
    "QUALITY_RESULTS",
    "REJECTS",
    "REJECT_REASONS",
    "RUNS",
    "SKETCHES",
    "SNAPSHOTS",
    "SPEND",
    "STAGES",
    "SYNTHETIC_CAPTIONS",
    "TABLES",
    "TAKEDOWNS",
    "TRAINING_PAIRS",
    "VERSION",
    "VERSION_PROPERTY",
    "Table",
    "identifier",
    "literal",
    "plain_literal",
]

# what the gate reads
GATED = ("pairs", "images", "rejects", "synthetic_captions", "fused_captions", "opinions", "alarms")
TABLES: dict[str, Table] = {
    t.name: t
    for t in (
        PAIRS, IMAGES, REJECTS, SYNTHETIC_CAPTIONS, FUSED_CAPTIONS, OPINIONS, TRAINING_PAIRS, SNAPSHOTS, RUNS, SPEND,
        TAKEDOWNS, QUALITY_RESULTS, ALARMS, BATCHES, EVALUATIONS, SKETCHES, NEAR_EDGES, NEAR_CLUSTERS,
    )
}  # fmt: skip
