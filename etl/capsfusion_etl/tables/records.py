"""Tables of records: snapshots, runs, spending, takedowns, gate results. Times UTC, US dollars. Pure."""

from capsfusion_etl.tables.table import RUN_ID, Table

SNAPSHOTS = Table(
    "snapshots",
    "Named, gated, pinned versions of training_pairs",
    ("name",),
    (
        ("name", "string", "name of the snapshot"),
        ("strategy", "string", "caption strategy"),
        ("table_id", "string", "Delta table id"),
        ("version", "bigint", "Delta version of training_pairs"),
        ("manifest_sha256", "string", "hash of the manifest: the files with sizes and hashes"),
        ("manifest", "string", "where the manifest is"),
        ("files", "bigint", "number of files"),
        ("size_bytes", "bigint", "their size"),
        ("row_count", "bigint", "rows"),
        ("gate", "string", "verdict of the gate: passed"),
        ("report", "string", "where the gate result is"),
        (
            "state",
            "string",
            "published, held (`capsfusion snapshots hold`), or taken_down: it holds what was taken down",
        ),
        ("created_at", "timestamp", "when it was published"),
        RUN_ID,
    ),
)
RUNS = Table(
    "runs",
    "One row for each stage of each run",
    ("run_id", "stage"),
    (
        RUN_ID,
        ("stage", "string", "stage that ran"),
        ("started_at", "timestamp", "start"),
        ("finished_at", "timestamp", "end"),
        ("rows_in", "bigint", "rows it looked at"),
        ("rows_out", "bigint", "rows it wrote"),
        ("rows_rejected", "bigint", "rows that stay behind because of this stage"),
        ("rows_per_s", "double", "rows it looked at in a second"),
        ("tokens", "bigint", "tokens that its engines took, lost requests at their most"),
        ("cost_usd", "double", "what its engines cost, lost requests at their most"),
        ("status", "string", "ok or failed"),
        ("error", "string", "what stopped it"),
        ("software", "string", "version of this project"),
    ),
)
SPEND = Table(
    "spend",
    "What engine work cost, one row for each committed slice",
    ("run_id", "stage", "params_hash", "slice"),
    (
        RUN_ID,
        ("stage", "string", "caption or fuse"),
        ("slice", "string", "first pair_id digits of the slice"),
        ("params_hash", "string", "what made the captions, as in their table"),
        ("rows", "bigint", "rows settled"),
        ("prompt_tokens", "bigint", "tokens read; for a lost request all that it could have taken"),
        ("completion_tokens", "bigint", "tokens written"),
        ("lost_requests", "bigint", "sent before a kill, the answer never seen: they may have been paid"),
        ("lost_usd", "double", "all that the lost requests could have cost"),
        ("settled_usd", "double", "what the slice cost, lost requests included"),
    ),
)
TAKEDOWNS = Table(
    "takedowns",
    "Requests to forget",
    ("kind", "value"),
    (
        ("kind", "string", "url, domain, image_id or pair_id"),
        ("value", "string", "what to forget; of a url the sha256 of its canonical form"),
        ("requested_at", "timestamp", "when it was asked"),
        ("applied_at", "timestamp", "when it was done; null until then"),
        ("proof", "string", "JSON: rows removed from each table"),
    ),
)
QUALITY_RESULTS = Table(
    "quality_results",
    "What the gate found: one row for each expectation of each run",
    ("run_id", "checked_at", "table_name", "rule"),
    (
        RUN_ID,
        ("checked_at", "timestamp", "when"),
        ("table_name", "string", "suite: the table that was looked at, references, shape or drift"),
        ("rule", "string", "name of the rule, as in thresholds.yaml"),
        ("expectation", "string", "in words"),
        ("severity", "string", "fail blocks publishing, warn only shows"),
        ("success", "boolean", "does it hold"),
        ("value", "double", "what was seen: a share of rows, or a value of the table; null: not to be computed"),
        ("min_value", "double", "lowest value that is well"),
        ("max_value", "double", "highest value that is well"),
        ("observed", "string", "what was seen in words, with examples, JSON"),
        ("unexpected_rows", "bigint", "rows against it; null where it is about the whole table"),
    ),
)
ALARMS = Table(
    "alarms",
    "What is strange about captions as a whole: with a row here nothing is published",
    ("params_hash", "alarm"),
    (
        RUN_ID,
        ("params_hash", "string", "what made the captions, as in fused_captions"),
        ("strategy", "string", "caption strategy"),
        ("alarm", "string", "one_caption_many_images, placeholder_image, shifted_answers or canaries"),
        ("detail", "string", "what was seen"),
        ("rows", "bigint", "rows concerned; 0 where it is about golden rows"),
        ("raised_at", "timestamp", "when"),
    ),
)
BATCHES = Table(
    "batches",
    "Work given to a batch API: found again by its id after a kill",
    ("token",),
    (
        ("token", "string", "our name for the batch, in its metadata too"),
        ("batch_id", "string", "name on the server; null until it has the batch"),
        ("params_hash", "string", "what makes the captions, as in fused_captions"),
        ("attempt", "int", "0, or how often its questions were asked before"),
        ("rows", "bigint", "questions in it"),
        ("reserved_tokens", "bigint", "all that it can take"),
        ("reserved_usd", "double", "all that it can cost"),
        ("state", "string", "sending, open, collected, or failed"),
        ("created_at", "timestamp", "when it was sent"),
        RUN_ID,
    ),
)
EVALUATIONS = Table(
    "evaluations",
    "Scores of trained models: which strategy wins at which scale is a query",
    ("model", "benchmark", "domain", "metric", "evaluated_at"),
    (
        ("model", "string", "folder of the model"),
        ("snapshot", "string", "what it was trained on; null if that is not known, as all up to seed"),
        ("manifest_sha256", "string", "hash of the manifest of that snapshot"),
        ("strategy", "string", "caption strategy of that snapshot"),
        ("recipe", "string", "recipe of the training"),
        ("step", "bigint", "steps trained"),
        ("pairs_seen", "bigint", "pairs trained on, repeated ones each time"),
        ("seed", "bigint", "seed of the training"),
        ("benchmark", "string", "name of the file with references or questions"),
        ("domain", "string", "all, or a part of the benchmark"),
        ("metric", "string", "CIDEr-D, BLEU-4, ROUGE-L, accuracy..."),
        ("value", "double", "the score"),
        ("evaluated_at", "timestamp", "when"),
    ),
)
