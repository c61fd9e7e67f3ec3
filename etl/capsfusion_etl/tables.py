"""The tables of the lake: names, keys, columns, and the closed list of reasons for which a pair leaves.

Pure: what `quality`, `trainer` and SQL users rely on (design section 3). Sizes in bytes, times UTC, US dollars.
"""

from dataclasses import dataclass

VERSION = "6"
VERSION_PROPERTY = "capsfusion.tables"
GATED = ("pairs", "images", "rejects", "synthetic_captions", "fused_captions", "alarms")  # what the gate looks at
STAGES = ("ingest", "fetch", "filter", "dedup", "caption", "fuse")

# stage -> reason -> what it means. `fuse` rejects carry the judge's verdicts when the fallback policy is "drop".
REJECT_REASONS: dict[str, dict[str, str]] = {
    "ingest": {
        "repeated_row": "the source holds this very pair more than once; one of them went on",
        "gone": "the newest version of its source does not hold it",
        "taken_down": "somebody asked to forget it, see takedowns; the detail has the kind of the request",
    },
    "fetch": {
        "bad_url": "no http or https address",
        "refused_address": "the host resolves to a private, loopback or link-local address",
        "unreachable": "no such host, or it did not answer",
        "timeout": "no complete answer in time",
        "http_error": "an HTTP status other than 200; the detail has it",
        "too_large": "more bytes or pixels than allowed",
        "not_an_image": "the bytes are no picture that can be decoded",
        "taken_down": "somebody asked to forget this picture",
        "opted_out": "the answer's X-Robots-Tag forbids training on it; the detail has it",
    },
    "filter": {
        "empty_caption": "no word",
        "too_short": "shorter than min_chars",
        "too_long": "longer than max_chars",
        "file_name": "the alt-text is a file name",
        "boilerplate": "words of the page, not of the picture: `no image available`, `click to enlarge`",
        "symbols": "more of other characters than max_symbols allows",
        "repetition": "one word over and over: more than max_repetition of the words",
        "instructions": "the alt-text talks to the model instead of describing the picture",
        "unsafe": "a word that is not safe for work",
        "stop_word": "a word of the list stop_words",
        "personal": "an e-mail address, a phone or a card number",
        "language": "written in another language than the lake's",
        "too_small": "the shorter side has fewer pixels than min_side",
        "aspect_ratio": "longer than max_aspect_ratio times its width, or the other way round",
        "placeholder": "a picture of a single colour",
        "common_caption": "more than max_images_per_caption pictures have this caption",
        "shared_picture": "more than max_hosts_per_picture hosts show this picture: an icon, or a placeholder",
    },
    "dedup": {
        "duplicate_image": "another pair has the same bytes and a longer caption",
        "duplicate_caption": "another pair has the same address and the same words (lakes without images)",
        "near_duplicate_image": "the picture of an earlier pair, but for a few bits of its perceptual hash",
        "near_duplicate_caption": "the words of an earlier pair, but for a few",
    },
    "caption": {"no_caption": "the captioner had nothing to say", "engine_error": "the captioner failed on this row"},
}


_TEXTS = (
    "url", "final_url", "raw_caption", "caption", "synthetic_caption", "answer", "detail", "verdict_detail", "observed",
    "error", "proof", "value",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """One Delta table. `columns` are (name, Spark SQL type, comment); `key` is unique."""

    name: str
    comment: str
    key: tuple[str, ...]
    columns: tuple[tuple[str, str, str], ...]
    partition_by: tuple[str, ...] = ()

    def schema(self, *, without: tuple[str, ...] = ()) -> str:
        """Spark's short schema string, for readers and UDFs."""
        return ", ".join(f"{name} {kind}" for name, kind, _ in self.columns if name not in without)

    def indexed(self) -> str:
        """Columns whose least and greatest values the table's log may keep.

        None that repeats what people wrote, as a log outlives the rows that are taken down.
        """
        plain = ("string", "int", "bigint", "double", "timestamp")  # of these Delta keeps values
        names = (name for name, kind, _ in self.columns if kind in plain and name not in _TEXTS)
        return ",".join(name for name in names if name not in self.partition_by)

    def ddl(self) -> str:
        """Column list of a CREATE TABLE, comments included."""
        return ", ".join(f"{name} {kind} COMMENT {literal(comment)}" for name, kind, comment in self.columns)


def literal(text: str) -> str:
    """Return `text` as a string literal of Spark SQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def identifier(text: str) -> str:
    """Return `text` as a quoted identifier of Spark SQL: a column, or the path of a Delta table."""
    return f"`{text.replace('`', '``')}`"


_PAIR = ("pair_id", "string", "sha256 over canonical url and raw caption")
_RUN = ("run_id", "string", "the run that wrote the row; see runs")
_MADE_BY = (
    ("engine", "string", "name of the engine"),
    ("model", "string", "model that the engine ran"),
    ("revision", "string", "revision of the model"),
    ("params_hash", "string", "hash of prompt and parameters: change one and its rows are made again"),
    ("prompt_tokens", "bigint", "tokens read, all attempts"),
    ("completion_tokens", "bigint", "tokens written, all attempts"),
    ("cost_usd", "double", "settled cost"),
    _RUN,
)
LEDGER = (
    "struct<kept: array<string>, lost: array<string>, invented_numbers: array<string>, "
    "invented_names: array<string>, recall: double>"
)

PAIRS = Table(
    "pairs",
    "Image-text pairs as the source has them",
    ("pair_id",),
    (
        _PAIR,
        ("url", "string", "address of the picture"),
        ("raw_caption", "string", "alt-text, untouched"),
        ("source", "string", "name of the source: source.name, or its path"),
        ("source_version", "string", "version of the source: hash of its files"),
        ("ingested_at", "timestamp", "when it was ingested"),
        ("extra", "map<string, string>", "every other column of the source"),
    ),
)
IMAGES = Table(
    "images",
    "What the fetch of each address gave: the picture or the error",
    ("url",),
    (
        ("url", "string", "address as in pairs"),
        ("final_url", "string", "where redirects led to"),
        ("image_id", "string", "sha256 of the bytes; null if there is no picture"),
        ("bytes", "binary", "the file as fetched, or resized; null if it is in a file"),
        ("path", "string", "the file, if it is too large for the table"),
        ("width", "int", "pixels, after EXIF orientation"),
        ("height", "int", "pixels, after EXIF orientation"),
        ("format", "string", "by content: jpeg, png, webp, gif"),
        ("phash", "string", "perceptual hash, 64 bits in hex"),
        ("contrast", "double", "standard deviation of the grey values, 0 to 127.5"),
        ("fetched_at", "timestamp", "when the answer was complete"),
        ("seconds", "double", "what the last attempt took"),
        ("attempts", "int", "how often it was asked for"),
        ("http_status", "int", "status of the last answer; null if none came"),
        ("error", "string", "reason as in rejects; null if all is well"),
        ("detail", "string", "what exactly went wrong"),
        _RUN,
    ),
)
REJECTS = Table(
    "rejects",
    "Why a pair did not go on: one row for each pair and stage, nothing is dropped without one",
    ("pair_id", "stage"),
    (
        _PAIR,
        ("stage", "string", "ingest, fetch, filter, dedup, caption or fuse"),
        ("reason", "string", "from the closed list in the docs"),
        ("detail", "string", "what was seen"),
        _RUN,
    ),
    partition_by=("stage",),
)
SYNTHETIC_CAPTIONS = Table(
    "synthetic_captions",
    "What a captioning model says about the picture",
    ("pair_id", "params_hash"),
    (
        _PAIR,
        ("image_id", "string", "picture it saw"),
        ("caption", "string", "synthetic caption"),
        ("error", "string", "why there is none"),
        *_MADE_BY,
    ),
)
FUSED_CAPTIONS = Table(
    "fused_captions",
    "The caption of each strategy for each pair, with the verdict on what a model wrote",
    ("pair_id", "strategy", "params_hash"),
    (
        _PAIR,
        ("strategy", "string", "fused, language-rewrite, raw, synthetic or mixed"),
        ("caption", "string", "the caption to use: fused if accepted, else the fallback; null if dropped"),
        ("caption_from", "string", "fused, raw, synthetic, or none if dropped"),
        ("verdict", "string", "accepted, abstained, engine_error, or the name of the check that failed"),
        ("verdict_detail", "string", "what the check saw"),
        ("answer", "string", "last answer of the model, also when it was refused"),
        ("attempts", "int", "how often the model was asked"),
        ("ledger", LEDGER, "facts of the raw caption kept and lost, facts that neither source holds"),
        ("raw_caption", "string", "sentence 1, as the model saw it"),
        ("synthetic_caption", "string", "sentence 2, as the model saw it"),
        *_MADE_BY,
    ),
)
_KIND = ("kind", "string", "image or caption, and the threshold: image/3 is three bits of the perceptual hash")
SKETCHES = Table(
    "sketches",
    "Keys that near duplicates share: what is new is compared with what is old by them",
    ("pair_id", "kind"),
    (_PAIR, _KIND, ("keys", "array<bigint>", "hashes of parts; near pairs have one in common"), _RUN),
)
NEAR_EDGES = Table(
    "near_edges",
    "Two pairs that are nearly the same",
    ("kind", "a", "b"),
    (
        _KIND,
        ("a", "string", "pair_id, the smaller one"),
        ("b", "string", "pair_id"),
        ("similarity", "double", "of captions the shared share of 5-grams, of pictures that of bits; 1 is equal"),
        _RUN,
    ),
)
NEAR_CLUSTERS = Table(
    "near_clusters",
    "Pairs that are one, directly or by others between them",
    ("pair_id", "kind"),
    (_PAIR, _KIND, ("cluster", "string", "smallest pair_id of the cluster")),
)
TRAINING_PAIRS = Table(
    "training_pairs",
    "The published product: what a trainer reads",
    ("pair_id", "strategy"),
    (
        _PAIR,
        ("image_id", "string", "sha256 of the bytes"),
        ("image", "binary", "the picture; null in a lake without images"),
        ("caption", "string", "text to learn"),
        ("caption_from", "string", "fused, raw or synthetic"),
        ("strategy", "string", "caption strategy"),
        ("split", "string", "train or held_out, by hash of the picture"),
    ),
    partition_by=("strategy", "split"),  # a trainer knows the rows of a split without reading any
)
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
        _RUN,
    ),
)
RUNS = Table(
    "runs",
    "One row for each stage of each run",
    ("run_id", "stage"),
    (
        _RUN,
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
        _RUN,
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
        _RUN,
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
        _RUN,
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
        _RUN,
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
TABLES: dict[str, Table] = {
    t.name: t
    for t in (
        PAIRS, IMAGES, REJECTS, SYNTHETIC_CAPTIONS, FUSED_CAPTIONS, TRAINING_PAIRS, SNAPSHOTS, RUNS, SPEND, TAKEDOWNS,
        QUALITY_RESULTS, ALARMS, BATCHES, EVALUATIONS, SKETCHES, NEAR_EDGES, NEAR_CLUSTERS,
    )
}  # fmt: skip
