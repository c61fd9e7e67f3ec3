"""Near-duplicate clusters in Spark: compare new pairs with all stored pairs and extend the clusters.

Dedup only appends to `sketches` and `near_edges`; the next run links the sketches of a killed one. Clusters are the
connected components: the driver finds them among few edges; among many, Spark propagates the smallest pair_id along the
edges until no label changes.
"""

from collections.abc import Iterable
from functools import partial

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.lake.run import Run
from capsfusion_etl.spark.persist import persisted
from capsfusion_etl.stages.dedup.sketches import (
    COMPARED,
    SKETCHED,
    DedupConfig,
    caption_batches,
    compare_batches,
    image_batches,
)
from capsfusion_etl.tables import NEAR_CLUSTERS

_FEW_EDGES = 500_000  # up to which the driver finds the clusters; more are found in Spark
_CROWD = 16  # pairs per key up to which all are compared with each other; above it, each only with the first


def kinds(config: DedupConfig) -> dict[str, str]:
    """Map each enabled comparison, named with its threshold (`image/3`, `caption/0.7`), to its reject reason."""
    found = {}
    if config.near_images is not None:
        found[f"image/{config.near_images}"] = "near_duplicate_image"
    if config.near_captions is not None:
        found[f"caption/{config.near_captions:g}"] = "near_duplicate_caption"
    return found


def update_clusters(run: Run, config: DedupConfig, survivors: DataFrame) -> None:
    """Sketch the new `survivors` (pair_id, raw_caption, phash), link them to near pairs and update the clusters."""
    for kind in kinds(config):
        if kind.startswith("image") and run.lake.is_empty("images"):
            continue
        _sketch(run, kind, config, survivors)
        _link(run, kind, config)
        _cluster(run, kind)


def _sketch(run: Run, kind: str, config: DedupConfig, survivors: DataFrame) -> None:
    there = run.lake.read("sketches").where(F.col("kind") == kind).select("pair_id")
    due = survivors.join(there, "pair_id", "left_anti")
    if kind.startswith("image"):
        due = due.where("phash IS NOT NULL").select("pair_id", "phash")
        made = due.mapInArrow(partial(image_batches, bits=int(config.near_images or 0)), SKETCHED)
    else:
        made = due.select("pair_id", "raw_caption").mapInArrow(caption_batches, SKETCHED)
    made = made.select("pair_id", F.lit(kind).alias("kind"), "keys", F.lit(run.run_id).alias("run_id"))
    if count := int(due.count()):
        run.lake.append("sketches", made, app_id=f"{run.run_id}/sketch/{kind}", at_most=count)


def _link(run: Run, kind: str, config: DedupConfig) -> None:
    lake = run.lake
    mine = _with_new(run, lake.read("sketches").where(F.col("kind") == kind))
    if mine.where("new").isEmpty():
        return
    keyed = mine.select(_number("pair_id").alias("number"), "new", F.explode("keys").alias("key"))
    found = _compared(run, kind, config, _candidates(keyed)).withColumn("kind", F.lit(kind))
    with persisted(found.withColumn("run_id", F.lit(run.run_id))) as edges:
        if count := int(edges.count()):  # Spark Connect 3.5 counts in NumPy integers
            lake.insert_new("near_edges", edges, at_most=count)


def _with_new(run: Run, rows: DataFrame) -> DataFrame:
    """Add a column `new`: true for rows of this run and of runs whose dedup never finished."""
    done = run.lake.read("runs").where("stage = 'dedup' AND status = 'ok'").select("run_id").distinct()
    marked = rows.join(F.broadcast(done.withColumn("done", F.lit(True))), "run_id", "left")
    return marked.withColumn("new", F.col("done").isNull())


def _candidates(keyed: DataFrame) -> DataFrame:
    """Return pairs a < b that share a key and of which at least one is new; both as numbers (see `_number`).

    A key's members are numbers of which the lowest bit says whether they are new: one shuffle of two numbers a row.
    """
    member = F.shiftleft("number", 1) + F.col("new").cast("bigint")
    groups = keyed.groupBy("key").agg(F.array_sort(F.collect_list(member)).alias("m")).where(
        "size(m) > 1 AND exists(m, x -> x & 1 = 1)"
    )  # fmt: skip
    each = f"flatten(transform(m, (x, i) -> transform(slice(m, i + 2, {_CROWD}), y -> struct(x, y))))"
    star = "transform(slice(m, 2, size(m)), y -> struct(m[0] AS x, y))"
    both = F.explode(F.expr(f"CASE WHEN size(m) <= {_CROWD} THEN {each} ELSE {star} END"))
    pairs = groups.select(both.alias("both")).where("(both.x | both.y) & 1 = 1")
    return pairs.selectExpr("shiftright(both.x, 1) AS a", "shiftright(both.y, 1) AS b").where("a <> b").distinct()


def _number(pair_id: str) -> Column:
    """Return the first 60 bits of the hash in column `pair_id`: they sort as the pair_ids do.

    Among 50 million pairs, the chance that any two share a number is a thousandth. These two would not be compared.
    """
    return F.conv(F.substring(pair_id, 1, 15), 16, 10).cast("bigint")


def _compared(run: Run, kind: str, config: DedupConfig, candidates: DataFrame) -> DataFrame:
    """Return the candidates within the threshold: a and b (pair_ids), and similarity in 0..1."""
    lake, image = run.lake, kind.startswith("image")
    pairs = lake.read("pairs")
    if image:
        pairs = pairs.join(lake.read("images").select("url", "phash"), "url")
    text = "phash" if image else "raw_caption"
    both = candidates.withColumnsRenamed({"a": "number_a", "b": "number_b"})
    for side in ("a", "b"):
        named = pairs.select(
            _number("pair_id").alias(f"number_{side}"), F.col("pair_id").alias(side), F.col(text).alias(f"text_{side}")
        )
        both = both.join(named, f"number_{side}")
    if not image:
        return both.select("a", "b", "text_a", "text_b").mapInArrow(
            partial(compare_batches, least=float(config.near_captions or 1)), COMPARED
        )
    halves = [
        F.bit_count(_half("text_a", start).bitwiseXOR(_half("text_b", start))) for start in (1, 9)
    ]  # 64 unsigned bits do not fit a bigint: compare 32 at a time
    apart = both.withColumn("bits", halves[0] + halves[1]).where(F.col("bits") <= int(config.near_images or 0))
    return apart.select("a", "b", (1 - F.col("bits") / 64).alias("similarity"))


def _half(column: str, start: int) -> Column:
    return F.conv(F.substring(column, start, 8), 16, 10).cast("bigint")


def _cluster(run: Run, kind: str) -> None:
    lake = run.lake
    edges = lake.read("near_edges").where(F.col("kind") == kind)
    if lake.is_empty("near_edges") or _with_new(run, edges).where("new").isEmpty():
        return
    few = edges.select("a", "b").limit(_FEW_EDGES + 1).collect()
    if len(few) <= _FEW_EDGES:
        _label(run, kind, components((row["a"], row["b"]) for row in few))
        return
    ends = edges.select("a", "b").unionByName(edges.select(F.col("b").alias("a"), F.col("a").alias("b")))
    nodes = ends.select(F.col("a").alias("pair_id")).distinct()
    new = nodes.select("pair_id", F.lit(kind).alias("kind"), F.col("pair_id").alias("cluster"))
    lake.insert_new("near_clusters", new)
    while True:
        labels = lake.read("near_clusters").where(F.col("kind") == kind).select("pair_id", "cluster")
        told = ends.join(labels, ends["b"] == labels["pair_id"]).select(F.col("a").alias("pair_id"), "cluster")
        above = labels.select(F.col("pair_id").alias("cluster"), F.col("cluster").alias("higher"))
        jumped = labels.join(above, "cluster").select("pair_id", F.col("higher").alias("cluster"))
        best = told.unionByName(jumped).groupBy("pair_id").agg(F.min("cluster").alias("best"))
        better = best.join(labels, "pair_id").where("best < cluster")
        changed = better.select("pair_id", F.lit(kind).alias("kind"), F.col("best").alias("cluster"))
        if not lake.update("near_clusters", changed):
            return


def components(edges: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Map each end of `edges` to the smallest end of its connected component."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = node = parent[above]  # halves the path
        return node

    for edge in edges:
        low, high = sorted(map(root, edge))
        parent[high] = low
    return {node: root(node) for node in parent}


def _label(run: Run, kind: str, clusters: dict[str, str]) -> None:
    """Write the clusters that are new or differ from the stored ones."""
    lake = run.lake
    stored = lake.read("near_clusters").where(F.col("kind") == kind).select("pair_id", "cluster").collect()
    before = {row["pair_id"]: row["cluster"] for row in stored}
    new = [(node, kind, cluster) for node, cluster in clusters.items() if node not in before]
    moved = [(node, kind, cluster) for node, cluster in clusters.items() if before.get(node, cluster) != cluster]
    if new:
        lake.insert_new("near_clusters", lake.spark.createDataFrame(new, NEAR_CLUSTERS.schema()), at_most=len(new))
    if moved:
        lake.update("near_clusters", lake.spark.createDataFrame(moved, NEAR_CLUSTERS.schema()))


def near_duplicates(run: Run, config: DedupConfig, survivors: DataFrame) -> list[DataFrame]:
    """Return all but one survivor of each cluster, one DataFrame for each kind: pair_id, reason, detail.

    The pair that was ingested first stays, then the longest raw caption, then the smallest pair_id. So a new pair never
    replaces one whose captions are already paid for.
    """
    found: list[DataFrame] = []
    if run.lake.is_empty("near_clusters"):
        return found
    for kind, reason in kinds(config).items():
        labels = run.lake.read("near_clusters").where(F.col("kind") == kind).select("pair_id", "cluster")
        rank = F.struct("ingested_at", -F.length("raw_caption"), "pair_id")
        rows = survivors.join(labels, "pair_id").select("pair_id", "cluster", rank.alias("rank"))
        first = rows.groupBy("cluster").agg(F.min("rank").alias("best"))
        gone = (
            rows.join(first, "cluster")
            .where("rank > best")
            .select("pair_id", F.lit(reason).alias("reason"), F.concat(F.lit("kept "), "best.pair_id").alias("detail"))
        )
        found.append(gone)
        survivors = survivors.join(gone.select("pair_id"), "pair_id", "left_anti")
    return found
