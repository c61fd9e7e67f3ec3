"""Tables of pairs, images and captions: what stages read and write. Sizes in bytes, times UTC, US dollars. Pure."""

from capsfusion_etl.tables.table import PAIR_ID, RUN_ID, Table

_PROVENANCE = (
    ("engine", "string", "name of the engine"),
    ("model", "string", "model that the engine ran"),
    ("revision", "string", "revision of the model"),
    ("params_hash", "string", "hash of prompt and parameters: change one and its rows are made again"),
    ("prompt_tokens", "bigint", "tokens read, all attempts"),
    ("completion_tokens", "bigint", "tokens written, all attempts"),
    ("cost_usd", "double", "settled cost"),
    RUN_ID,
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
        PAIR_ID,
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
        RUN_ID,
    ),
)
REJECTS = Table(
    "rejects",
    "Why a pair did not go on: one row for each pair and stage, nothing is dropped without one",
    ("pair_id", "stage"),
    (
        PAIR_ID,
        ("stage", "string", "ingest, fetch, filter, dedup, caption or fuse"),
        ("reason", "string", "from the closed list in the docs"),
        ("detail", "string", "what was seen"),
        RUN_ID,
    ),
    partition_by=("stage",),
)
SYNTHETIC_CAPTIONS = Table(
    "synthetic_captions",
    "What a captioning model says about the picture",
    ("pair_id", "params_hash"),
    (
        PAIR_ID,
        ("image_id", "string", "picture it saw"),
        ("caption", "string", "synthetic caption"),
        ("error", "string", "why there is none"),
        *_PROVENANCE,
    ),
)
FUSED_CAPTIONS = Table(
    "fused_captions",
    "The caption of each strategy for each pair, with the verdict on what a model wrote",
    ("pair_id", "strategy", "params_hash"),
    (
        PAIR_ID,
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
        *_PROVENANCE,
    ),
)
_KIND = ("kind", "string", "image or caption, and the threshold: image/3 is three bits of the perceptual hash")
SKETCHES = Table(
    "sketches",
    "Keys that near duplicates share: what is new is compared with what is old by them",
    ("pair_id", "kind"),
    (PAIR_ID, _KIND, ("keys", "array<bigint>", "hashes of parts; near pairs have one in common"), RUN_ID),
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
        RUN_ID,
    ),
)
NEAR_CLUSTERS = Table(
    "near_clusters",
    "Pairs that are one, directly or by others between them",
    ("pair_id", "kind"),
    (PAIR_ID, _KIND, ("cluster", "string", "smallest pair_id of the cluster")),
)
TRAINING_PAIRS = Table(
    "training_pairs",
    "The published product: what a trainer reads",
    ("pair_id", "strategy"),
    (
        PAIR_ID,
        ("image_id", "string", "sha256 of the bytes"),
        ("image", "binary", "the picture; null in a lake without images"),
        ("caption", "string", "text to learn"),
        ("caption_from", "string", "fused, raw or synthetic"),
        ("strategy", "string", "caption strategy"),
        ("split", "string", "train or held_out, by hash of the picture"),
    ),
    partition_by=("strategy", "split"),  # a trainer knows the rows of a split without reading any
)
