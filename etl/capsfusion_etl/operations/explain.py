"""`capsfusion explain`: what happened to a pair at each stage, and why it is or is not published."""

from collections.abc import Iterator
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import canonical_url
from capsfusion_etl.lake.blocklist import url_hash
from capsfusion_etl.lake.lake import Lake

_LONGEST = 160  # characters of the text of a line


def explain_pair(lake: Lake, asked: str) -> Iterator[str]:
    """Yield lines about at most 20 pairs.

    Args:
        lake: the lake.
        asked: a pair_id or its beginning, or a URL.

    Raises:
        InputError: no pair and no takedown request match.
    """
    address = "://" in asked
    pairs = lake.read("pairs")
    wanted = pairs.where(
        F.col("url").isin(asked, canonical_url(asked)) if address else F.col("pair_id").startswith(asked)
    )
    found = wanted.orderBy("pair_id").limit(20).collect()
    if not found:
        rejects = lake.read("rejects").where(F.col("pair_id").startswith(asked) & (F.col("reason") == "taken_down"))
        for row in [] if address else rejects.collect():
            yield f"{row['pair_id']}: taken down by a request of kind {row['detail']}"
            return
        requests = lake.read("takedowns").where(F.col("value") == (url_hash(asked) if address else asked)).collect()
        if not requests:
            raise InputError(f"no pair {asked} in {lake.root}: check the pair_id or URL")
        yield from (f"{asked}: taken down, asked for at {r['requested_at']:%Y-%m-%d %H:%M}" for r in requests)
    for row in found:
        yield from _story(lake, row.asDict())


def _story(lake: Lake, pair: dict[str, Any]) -> Iterator[str]:
    def of(table: str, key: str = "pair_id") -> list[dict[str, Any]]:
        rows: DataFrame = lake.read(table).where(F.col(key) == pair[key])
        return [row.asDict() for row in rows.drop("bytes", "image", "ledger").collect()]

    yield pair["pair_id"]
    yield _line(
        "ingested", f"{pair['ingested_at']:%Y-%m-%d %H:%M} from {pair['source']} {pair['source_version']}", pair["url"]
    )
    yield _line("raw", repr(pair["raw_caption"]))
    for image in of("images", "url"):
        if image["error"]:
            yield _line("fetched", f"HTTP {image['http_status']}, {image['error']}: {image['detail']}")
        else:
            size = f"{image['width']} x {image['height']} {image['format']}"
            yield _line("fetched", f"{image['image_id'][:12]}…, {size}, phash {image['phash']}")
    rejects = of("rejects")
    for row in rejects:
        yield _line(row["stage"], f"rejected, {row['reason']}: {row['detail']} (run {row['run_id']})")
    for row in of("near_clusters"):
        yield _line("near", f"{row['kind']}: cluster {row['cluster'][:12]}…")
    for row in of("synthetic_captions"):
        made = f"{row['engine']} {row['model']}"
        yield _line("captioned", f"by {made}: {row['caption']!r}" if row["caption"] else f"by {made}: {row['error']}")
    for row in of("fused_captions"):
        words = f"{row['verdict']}, from {row['caption_from']}: {row['caption']!r}"
        yield _line(row["strategy"], f"by {row['engine']} {row['model']}, {row['attempts']} attempts: {words}")
    published = of("training_pairs")
    for row in published:
        yield _line("published", f"{row['strategy']}, split {row['split']}: {row['caption']!r}")
    if not published:
        lost = [row for row in rejects if row["reason"] != "repeated_row"]
        yield _line("published", f"no: {lost[0]['reason']}" if lost else "not yet")


def _line(what: str, words: str, more: str = "") -> str:
    text = f"{words}  {more}".rstrip()
    return f"  {what:10s} {text if len(text) <= _LONGEST else text[: _LONGEST - 1] + '…'}"
