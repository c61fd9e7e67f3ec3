"""Tables of pairs, images and captions, read and written by stages. Sizes in bytes, times UTC, US dollars. Pure."""

from capsfusion_etl.tables.table import PAIR_ID, RUN_ID, Table

_PROVENANCE = (
    ("engine", "string", "name of the engine"),
    ("model", "string", "model that the engine ran"),
    ("revision", "string", "revision of the model"),
    ("params_hash", "string", "hash of engine, prompt and parameters: after a change the rows are made again"),
    ("prompt_tokens", "bigint", "prompt tokens of all attempts"),
    ("completion_tokens", "bigint", "completion tokens of all attempts"),
    ("cost_usd", "double", "settled cost in US dollars"),
    RUN_ID,
)
LEDGER = (
    "struct<kept: array<string>, lost: array<string>, invented_numbers: array<string>, "
    "invented_names: array<string>, recall: double, unsupported: array<string>, embellished: array<string>>"
)

PAIRS = Table(
    "pairs",
    "Image-text pairs as in the source",
    ("pair_id",),
    (
        PAIR_ID,
        ("url", "string", "URL of the image"),
        ("raw_caption", "string", "alt-text, untouched"),
        ("source", "string", "name of the source: source.name, or its path"),
        ("source_version", "string", "version of the source: hash of its files"),
        ("ingested_at", "timestamp", "when it was ingested"),
        ("extra", "map<string, string>", "all other columns of the source"),
    ),
)
IMAGES = Table(
    "images",
    "Result of fetching each URL: the image or the error",
    ("url",),
    (
        ("url", "string", "URL as in pairs"),
        ("final_url", "string", "URL after redirects"),
        ("redirects", "array<string>", "URLs that redirected on the way from url to final_url, in order"),
        ("image_id", "string", "sha256 of the bytes; null if there is no image"),
        ("bytes", "binary", "the image as fetched, or resized; null if it is in the file `path`"),
        ("path", "string", "file of an image that is too large for the table; relative to the lake if it is in it"),
        ("width", "int", "pixels, after EXIF orientation"),
        ("height", "int", "pixels, after EXIF orientation"),
        ("format", "string", "image format by content: jpeg, png, webp, gif"),
        ("phash", "string", "perceptual hash, 64 bits in hex"),
        ("contrast", "double", "standard deviation of the grey values, 0 to 127.5"),
        ("fetched_at", "timestamp", "when the fetch ended"),
        ("seconds", "double", "duration of the last attempt"),
        ("attempts", "int", "number of attempts"),
        ("http_status", "int", "status of the last response; null if there was none"),
        ("error", "string", "reason as in rejects; null on success"),
        ("detail", "string", "details of the error"),
        RUN_ID,
    ),
)
REJECTS = Table(
    "rejects",
    "Rejected pairs: at most one row for each pair and stage; no pair is dropped without one",
    ("pair_id", "stage"),
    (
        PAIR_ID,
        ("stage", "string", "ingest, fetch, filter, dedup, caption or fuse"),
        ("reason", "string", "one of the reasons listed in docs/tables.md"),
        ("detail", "string", "what the stage found"),
        RUN_ID,
    ),
    partition_by=("stage",),
)
SYNTHETIC_CAPTIONS = Table(
    "synthetic_captions",
    "Captions that a captioning engine wrote for the images",
    ("pair_id", "params_hash"),
    (
        PAIR_ID,
        ("image_id", "string", "image that it saw"),
        ("caption", "string", "synthetic caption"),
        ("error", "string", "why there is no caption"),
        *_PROVENANCE,
    ),
)
FUSED_CAPTIONS = Table(
    "fused_captions",
    "Caption of each strategy for each pair, with the verdict on what the model wrote",
    ("pair_id", "strategy", "params_hash"),
    (
        PAIR_ID,
        ("strategy", "string", "fused, language-rewrite, raw, synthetic or mixed"),
        ("caption", "string", "caption to use: the fused one if accepted, else the fallback; null if dropped"),
        ("caption_from", "string", "fused, raw, synthetic, or none if dropped"),
        (
            "verdict",
            "string",
            "accepted, abstained, doubted, shifted, engine_error, or the name of the check that failed",
        ),
        ("verdict_detail", "string", "what the check found"),
        ("answer", "string", "last answer of the model, also if a check rejected it"),
        ("attempts", "int", "number of times that the model was asked"),
        ("ledger", LEDGER, "facts of the raw caption kept and lost; facts, words and praise that neither source has"),
        ("raw_caption", "string", "raw caption that was fused: sentence 1 of the prompt"),
        ("synthetic_caption", "string", "synthetic caption that was fused: sentence 2 of the prompt"),
        *_PROVENANCE,
    ),
)
OPINIONS = Table(
    "opinions",
    "Second opinions: what a large model says of a share of the accepted captions",
    ("pair_id", "params_hash", "caption"),
    (
        PAIR_ID,
        ("caption", "string", "caption that it read"),
        ("caption_params_hash", "string", "params_hash of the caption, as in fused_captions"),
        ("verdict", "string", "good, lost, embellished, false, broken, or engine_error if there is no opinion"),
        ("detail", "string", "the words at fault, or the error"),
        *_PROVENANCE,
    ),
)
_KIND = (
    "kind",
    "string",
    "image or caption, with the threshold: image/3 allows three different bits of the perceptual hash",
)
SKETCHES = Table(
    "sketches",
    "Keys that near duplicates share, to find the stored pairs with which a new pair is compared",
    ("pair_id", "kind"),
    (PAIR_ID, _KIND, ("keys", "array<bigint>", "hashes of parts; near duplicates have at least one in common"), RUN_ID),
)
NEAR_EDGES = Table(
    "near_edges",
    "Links between two pairs that are near duplicates",
    ("kind", "a", "b"),
    (
        _KIND,
        ("a", "string", "the smaller pair_id"),
        ("b", "string", "the larger pair_id"),
        ("similarity", "double", "captions: Jaccard similarity of 5-grams; images: share of equal bits; 1 is equal"),
        RUN_ID,
    ),
)
NEAR_CLUSTERS = Table(
    "near_clusters",
    "Clusters of near duplicates: pairs that near_edges link, directly or through other pairs",
    ("pair_id", "kind"),
    (PAIR_ID, _KIND, ("cluster", "string", "smallest pair_id of the cluster")),
)
TRAINING_PAIRS = Table(
    "training_pairs",
    "Published image-caption pairs, which the trainer reads",
    ("pair_id", "strategy"),
    (
        PAIR_ID,
        ("image_id", "string", "sha256 of the bytes"),
        ("image", "binary", "the image; null in a lake without images"),
        ("caption", "string", "caption to train on"),
        ("caption_from", "string", "fused, raw or synthetic"),
        ("strategy", "string", "caption strategy"),
        ("split", "string", "train or held_out, by hash of the image"),
    ),
    partition_by=("strategy", "split"),  # a trainer finds the files of a split without reading rows
)
