"""`capsfusion explain`: what happened to a pair at each stage, and why it is or is not published."""

from collections.abc import Iterator
from typing import Any

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
    if address:
        found = lake.rows("pairs", "url", among=(asked, canonical_url(asked)))
    else:
        found = lake.rows("pairs", "pair_id", prefix=asked)
    if not found:
        for row in [] if address else lake.rows("rejects", "pair_id", prefix=asked):
            if row["reason"] == "taken_down":
                yield f"{row['pair_id']}: taken down by a request of kind {row['detail']}"
                return
        requests = lake.rows("takedowns", "value", among=(url_hash(asked) if address else asked,))
        if not requests:
            raise InputError(f"no pair {asked} in {lake.root}: check the pair_id or URL")
        yield from (f"{asked}: taken down, asked for at {r['requested_at']:%Y-%m-%d %H:%M}" for r in requests)
    for row in sorted(found, key=lambda row: str(row["pair_id"]))[:20]:
        yield from _story(lake, row)


def _story(lake: Lake, pair: dict[str, Any]) -> Iterator[str]:
    def of(table: str, key: str = "pair_id") -> list[dict[str, Any]]:
        return lake.rows(table, key, among=(pair[key],), without=("bytes", "image", "ledger"))

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
    for row in of("opinions"):
        words = f"{row['verdict']}: {row['detail']}" if row["detail"] else row["verdict"]
        yield _line("opinion", f"of {row['engine']} {row['model']}: {words}")
    published = of("training_pairs")
    for row in published:
        yield _line("published", f"{row['strategy']}, split {row['split']}: {row['caption']!r}")
    if not published:
        lost = [row for row in rejects if row["reason"] != "repeated_row"]
        yield _line("published", f"no: {lost[0]['reason']}" if lost else "not yet")


def _line(what: str, words: str, more: str = "") -> str:
    text = f"{words}  {more}".rstrip()
    return f"  {what:10s} {text if len(text) <= _LONGEST else text[: _LONGEST - 1] + '…'}"
