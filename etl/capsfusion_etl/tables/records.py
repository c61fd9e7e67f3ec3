"""Tables of records: snapshots, runs, spending, takedowns, gate results, scores. Times UTC, US dollars. Pure."""

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
        ("manifest_sha256", "string", "sha256 of the manifest, which lists the files with sizes and hashes"),
        ("manifest", "string", "path of the manifest"),
        ("files", "bigint", "number of files"),
        ("size_bytes", "bigint", "total size of the files"),
        ("row_count", "bigint", "number of rows"),
        ("gate", "string", "verdict of the gate: passed"),
        ("report", "string", "path of the gate result"),
        (
            "state",
            "string",
            "published, held (`capsfusion snapshots hold`), or taken_down: contains pairs that were taken down",
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
        ("started_at", "timestamp", "when it started"),
        ("finished_at", "timestamp", "when it ended"),
        ("rows_in", "bigint", "rows that it read"),
        ("rows_out", "bigint", "rows that it wrote"),
        ("rows_rejected", "bigint", "rows that it rejects"),
        ("rows_per_s", "double", "rows that it read per second"),
        ("tokens", "bigint", "tokens that its engines used; lost requests count with their maximum"),
        ("cost_usd", "double", "cost of its engines; lost requests count with their maximum"),
        ("status", "string", "ok or failed"),
        ("error", "string", "error message; null if ok"),
        ("software", "string", "version of this project"),
    ),
)
SPEND = Table(
    "spend",
    "Cost of the engines: one row for each committed slice",
    ("run_id", "stage", "params_hash", "slice"),
    (
        RUN_ID,
        ("stage", "string", "caption, fuse or opinion"),
        ("slice", "string", "first digits of the pair_ids in the slice"),
        ("params_hash", "string", "params_hash of the captions"),
        ("rows", "bigint", "rows settled"),
        ("prompt_tokens", "bigint", "prompt tokens; lost requests count with their maximum"),
        ("completion_tokens", "bigint", "completion tokens"),
        (
            "lost_requests",
            "bigint",
            "requests sent before a crash whose responses were never seen: they may have been paid for",
        ),
        ("lost_usd", "double", "maximum cost of the lost requests"),
        ("settled_usd", "double", "cost of the slice, lost requests included"),
    ),
)
TAKEDOWNS = Table(
    "takedowns",
    "Takedown requests",
    ("kind", "value"),
    (
        ("kind", "string", "url, domain, image_id or pair_id"),
        ("value", "string", "what to remove; for a url the sha256 of its canonical form"),
        ("requested_at", "timestamp", "when it was requested"),
        ("applied_at", "timestamp", "when it was applied; null until then"),
        ("proof", "string", "JSON: rows removed from each table, affected snapshots and training runs"),
    ),
)
QUALITY_RESULTS = Table(
    "quality_results",
    "Results of the quality gate: one row for each expectation of each run",
    ("run_id", "checked_at", "table_name", "rule"),
    (
        RUN_ID,
        ("checked_at", "timestamp", "when it was checked"),
        ("table_name", "string", "suite: the checked table, references, shape or drift"),
        ("rule", "string", "name of the rule in thresholds.yaml"),
        ("expectation", "string", "the expectation in words"),
        ("severity", "string", "fail blocks publishing, warn only reports"),
        ("success", "boolean", "whether it holds"),
        ("value", "double", "observed value: a share of rows, or a value of the table; null if it cannot be computed"),
        ("min_value", "double", "lowest allowed value"),
        ("max_value", "double", "highest allowed value"),
        ("observed", "string", "JSON: observations in words, with examples"),
        ("unexpected_rows", "bigint", "rows that violate it; null if it is about the whole table"),
    ),
)
ALARMS = Table(
    "alarms",
    "Signs that the captions as a whole are wrong: any row here blocks publishing",
    ("params_hash", "alarm"),
    (
        RUN_ID,
        ("params_hash", "string", "params_hash of the captions, as in fused_captions"),
        ("strategy", "string", "caption strategy"),
        ("alarm", "string", "one_caption_many_images, placeholder_image, shifted_answers or canaries"),
        ("detail", "string", "what was found"),
        ("rows", "bigint", "rows (for placeholder_image: hosts) concerned; 0 for canaries"),
        ("raised_at", "timestamp", "when it was raised"),
    ),
)
BATCHES = Table(
    "batches",
    "Batches sent to a batch API; after a crash they are found again by token or id",
    ("token",),
    (
        ("token", "string", "our name for the batch, also in its metadata"),
        ("batch_id", "string", "id on the server; null until the server has the batch"),
        ("params_hash", "string", "params_hash of the captions, as in fused_captions"),
        ("attempt", "int", "number of earlier attempts at its requests"),
        ("rows", "bigint", "number of requests in it"),
        ("reserved_tokens", "bigint", "maximum number of tokens that it can use"),
        ("reserved_usd", "double", "maximum cost"),
        ("state", "string", "sending, open, collected, or failed"),
        ("created_at", "timestamp", "when it was sent"),
        RUN_ID,
    ),
)
EVALUATIONS = Table(
    "evaluations",
    "Scores of trained models, to compare strategies and scales with a query",
    ("model", "benchmark", "domain", "metric", "evaluated_at"),
    (
        ("model", "string", "folder of the model"),
        ("snapshot", "string", "snapshot it was trained on; null if unknown, as are all columns up to seed"),
        ("manifest_sha256", "string", "sha256 of the manifest of that snapshot"),
        ("strategy", "string", "caption strategy of that snapshot"),
        ("recipe", "string", "recipe of the training"),
        ("step", "bigint", "number of training steps"),
        ("pairs_seen", "bigint", "number of pairs trained on; a repeated pair counts each time"),
        ("seed", "bigint", "seed of the training"),
        ("benchmark", "string", "name of the file with references or questions"),
        ("domain", "string", "all, or a part of the benchmark"),
        ("metric", "string", "CIDEr-D, BLEU-4, ROUGE-L, accuracy..."),
        ("value", "double", "the score"),
        ("evaluated_at", "timestamp", "when it was evaluated"),
    ),
)
