"""What a takedown would remove, without Spark where DuckDB can read the lake; writes nothing."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from capsfusion_etl.errors import InputError
from capsfusion_etl.lake.blocklist import NAMES, earlier
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.operations.takedown import DERIVED, Proof, homes, requested
from capsfusion_etl.queries import Queries, queries
from capsfusion_etl.snapshots.catalog import as_table, manifest_of, recorded
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.tables import literal

_LOOKED_FOR = 10  # domains for which similar ones are looked for
_NEAR, _SIMILAR = 3, 0.8  # most similar hosts to name, and how similar they are (difflib's ratio)

# Requests: these, and by URL, domain and pair_id all earlier ones, which a takedown carries out again.
_REQUESTS = """SELECT name FROM asked
UNION SELECT concat(kind, ' ', value) AS name FROM takedowns WHERE kind <> 'image_id'"""
# `served`: images that a request names by image_id, or by a place to which they were redirected; `name` is the request.
_SERVED = f"""SELECT DISTINCT s.url, s.name FROM (
  SELECT w.url, explode({NAMES}(w.step)) AS name FROM (
    SELECT url, final_url AS step FROM images WHERE final_url IS NOT NULL AND final_url <> url
    UNION ALL SELECT url, explode(redirects) AS step FROM images
  ) w WHERE w.step <> w.url
  UNION ALL SELECT url, concat('image_id ', image_id) AS name FROM images
) s LEFT SEMI JOIN requests a ON a.name = s.name"""
# `hits`: pairs that are named by a request, or by the URL of such an image.
_HITS = f"""SELECT DISTINCT p.pair_id, p.url, p.name FROM (
  SELECT pair_id, url, explode({NAMES}(url)) AS name FROM pairs
  UNION ALL SELECT pair_id, url, concat('pair_id ', pair_id) AS name FROM pairs
) p LEFT SEMI JOIN (
  SELECT name FROM requests
  UNION ALL SELECT s.name FROM (SELECT explode({NAMES}(url)) AS name FROM served) s WHERE s.name LIKE 'url %'
) w ON w.name = p.name"""
# `told`: these pairs, and those of earlier takedowns.
_TOLD = """SELECT pair_id FROM hits
UNION SELECT pair_id FROM rejects WHERE stage = 'ingest' AND reason = 'taken_down'"""
_GONE = "SELECT p.pair_id, p.url FROM pairs p LEFT SEMI JOIN told t ON t.pair_id = p.pair_id"
# Of the images of `gone`, and those named by their bytes, the ones whose URL no other pair has.
_IMAGES = """SELECT count(*) AS rows FROM images i LEFT SEMI JOIN (
  SELECT url FROM gone UNION ALL SELECT url FROM served WHERE name LIKE 'image_id %'
) u ON u.url = i.url LEFT ANTI JOIN (
  SELECT p.url FROM pairs p LEFT ANTI JOIN gone g ON g.pair_id = p.pair_id
) o ON o.url = i.url"""
_EDGES = """SELECT count(*) AS rows FROM (
  SELECT t.kind, t.a, t.b FROM near_edges t LEFT SEMI JOIN told g ON g.pair_id = t.a
  UNION SELECT t.kind, t.a, t.b FROM near_edges t LEFT SEMI JOIN told g ON g.pair_id = t.b
) e"""


def preview(lake: Lake, requests: Iterable[tuple[str, str]]) -> Proof:
    """Return the proof that `take_down` would give now; how many files it would rewrite is not known.

    Raises:
        InputError: `requests` is empty, or a value is.
    """
    asked = requested(requests)
    with queries(lake, "pairs", "images", "rejects", "takedowns", *DERIVED) as ask:
        values = ", ".join(f"({literal(f'{kind} {value}')})" for kind, value in asked)
        ask.define("asked", f"SELECT DISTINCT name FROM VALUES {values} AS a(name)")
        ask.define("requests", _REQUESTS)
        ask.define("served", _SERVED, once=True)
        ask.define("hits", _HITS, once=True)
        ask.define("told", _TOLD, once=True)
        ask.define("gone", _GONE, once=True)
        tables = {table: {"rows": rows} for table, rows in _rows(ask)}
        named = {row["name"] for row in ask.rows("SELECT name FROM hits UNION SELECT name FROM served")}
        named |= {f"{kind} {value}" for kind, value in earlier(lake)}
        missed = [name for name in sorted({f"{kind} {value}" for kind, value in asked}) if name not in named]
        snapshots = [manifest for manifest in _manifests(lake) if _holds_some(ask, manifest)]
    runs = sorted({run for manifest in snapshots for run in _runs(lake, manifest)})
    return Proof(tables["pairs"]["rows"], tables, [m.name for m in snapshots], runs, unmatched=missed)


def _rows(ask: Queries) -> Iterator[tuple[str, int]]:
    """Yield each table and the number of rows that would leave it."""
    which = {"rejects": "hits", "pairs": "gone"}  # which pairs; of the others, those of earlier takedowns, too
    for table in ("rejects", *DERIVED, "images", "pairs"):
        pairs = which.get(table, "told")
        query = f"SELECT count(*) AS rows FROM {table} t LEFT SEMI JOIN {pairs} g ON g.pair_id = t.pair_id"
        query = {"images": _IMAGES, "near_edges": _EDGES}.get(table, query)
        yield table, int(ask.rows(query)[0]["rows"])


def _manifests(lake: Lake) -> Iterator[Manifest]:
    for row in recorded(lake):
        yield manifest_of(lake, row)


def _holds_some(ask: Queries, manifest: Manifest) -> bool:
    """Return whether a snapshot has pairs that would go, or has files that cannot be read."""
    table = f"snapshot_{manifest.sha256()[:16]}"
    try:
        as_table(ask, table, manifest, "pair_id")
    except InputError:
        return True
    return bool(ask.rows(f"SELECT 1 AS one FROM {table} s LEFT SEMI JOIN told g ON g.pair_id = s.pair_id LIMIT 1"))


def _runs(lake: Lake, manifest: Manifest) -> set[str]:
    """Return the folders of the models that were trained on a snapshot, as far as the lake knows."""
    evaluated = lake.rows("evaluations", "manifest_sha256", among=(manifest.sha256(),))
    trained: list[Path] = [home / "checkpoints" / manifest.name for home in homes(lake)]
    return {str(row["model"]) for row in evaluated} | {str(folder) for folder in trained if folder.is_dir()}


def near_domains(lake: Lake, domains: Sequence[str]) -> list[str]:
    """Return hosts of the lake whose spelling is close to one of the first `domains`, the closest of each first."""
    with queries(lake, "pairs") as ask:
        names = f"SELECT explode({NAMES}(url)) AS name FROM pairs"
        found = ask.rows(f"SELECT DISTINCT name FROM ({names}) n WHERE name LIKE 'domain %'")
    hosts = [host for row in found if "." in (host := row["name"].partition(" ")[2])]
    close = [difflib.get_close_matches(domain, hosts, _NEAR, _SIMILAR) for domain in domains[:_LOOKED_FOR]]
    return list(dict.fromkeys(host for some in close for host in some))
