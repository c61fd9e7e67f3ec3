"""Which pairs must not be here: requests to forget, matched without keeping what they were about.

Of an address only the hash of its canonical form is kept, so that not even the list of what was forgotten tells it.
"""

import hashlib

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.ids import canonical_url, host_of
from capsfusion_etl.lake.lake import Lake

KINDS = ("url", "domain", "image_id", "pair_id")


def value_of(kind: str, given: str) -> str:
    """What `takedowns` keeps of a request."""
    if kind == "url":
        return url_hash(given)
    if kind == "domain":
        return host_of(given if "://" in given else f"http://{given.strip()}")
    return given.strip().lower()


def url_hash(url: str) -> str:
    """sha256 of the canonical form of an address."""
    return hashlib.sha256(canonical_url(url).encode("utf-8", "surrogatepass")).hexdigest()


def blocked_pairs(lake: Lake, pairs: DataFrame) -> DataFrame:
    """Of `pairs` (pair_id, url) those that a request speaks of: pair_id, url, and the kind of request.

    A request about bytes is also one about the addresses that showed them, which are in the list then.
    """

    @F.pandas_udf("array<string>")  # type: ignore[attr-defined,call-overload,untyped-decorator,unused-ignore]
    def names(urls: pd.Series) -> pd.Series:
        return urls.map(lambda url: [f"url {url_hash(url)}", *(f"domain {domain}" for domain in domains_of(url))])

    requests = lake.read("takedowns").where("kind <> 'image_id'").select("kind", "value").distinct()
    if requests.isEmpty():
        return pairs.select("pair_id", "url", F.lit("").alias("kind")).where("false")
    own = F.array(F.concat(F.lit("pair_id "), "pair_id"))
    named = pairs.select("pair_id", "url", F.explode(F.concat(own, names("url"))).alias("name"))
    asked = requests.select("kind", F.concat_ws(" ", "kind", "value").alias("name"))
    return named.join(asked, "name").groupBy("pair_id", "url").agg(F.min("kind").alias("kind"))


def blocked_images(lake: Lake) -> frozenset[str]:
    """image_ids that must not come back, under whatever address."""
    rows = lake.read("takedowns").where("kind = 'image_id'").select("value").distinct().collect()
    return frozenset(row["value"] for row in rows)


def domains_of(url: str) -> list[str]:
    """The host and every domain above it: a request about example.org speaks of img.example.org."""
    labels = host_of(url).split(".")
    return [".".join(labels[i:]) for i in range(len(labels))]
