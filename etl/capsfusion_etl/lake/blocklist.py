"""The blocklist of takedowns: which pairs and images must not come back.

For a URL the table `takedowns` stores only the hash of its canonical form, so that the blocklist does not reveal it.
"""

import hashlib
import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import host_of, hosts_of, spellings_of
from capsfusion_etl.lake.lake import Lake

KINDS = ("url", "domain", "image_id", "pair_id")
NAMES = "capsfusion_takedown_names"  # the SQL function of `names_of`


def value_of(kind: str, given: str) -> str:
    """Return what `takedowns` stores of a request: a hash for a URL, else the host or id in lower case.

    Args:
        kind: one of KINDS.
        given: the URL, domain (or a URL of it), image_id or pair_id.

    Raises:
        InputError: the value is empty, or no domain.
    """
    value = given.strip().lower()
    if kind == "url" and value:
        return url_hash(given)
    if kind == "domain":
        value = host_of(given if "://" in given else f"http://{_bracketed(given.strip())}").removeprefix("*.")
    if not value:
        raise InputError(f"takedown: {given!r} is no {kind}")
    return value


def _bracketed(host: str) -> str:
    """Return a host as it stands in a URL, where an IPv6 address has brackets."""
    try:
        return f"[{ipaddress.IPv6Address(host)}]"
    except ValueError:
        return host


def requests_in(path: Path) -> list[tuple[str, str]]:
    """Read requests from a file: one `kind value` or URL per line.

    `#` starts a comment, except in a line that begins with http:// or https://, where it is part of the URL.

    Raises:
        InputError: the file cannot be read, or a line is not a request.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        words = (
            line.split("#")[0].split()
            if not line.lstrip().startswith(("http://", "https://"))
            else ["url", line.strip()]
        )
        if words and (len(words) != 2 or words[0] not in KINDS):
            raise InputError(f"{path}, line {number}: wants {', '.join(KINDS)} and a value, or a URL")
        if words:
            found.append((words[0], words[1]))
    return found


def url_hash(url: str) -> str:
    """Return the sha256 (hex) of `url` in canonical form with its host in ASCII: what a request stores."""
    return url_hashes(url)[-1]


def url_hashes(url: str) -> list[str]:
    """Return the hashes by which requests may name `url`: those stored before hosts were brought to ASCII, too."""
    return [hashlib.sha256(s.encode("utf-8", "surrogatepass")).hexdigest() for s in spellings_of(url)]


def blocked_pairs(lake: Lake, pairs: DataFrame) -> DataFrame:
    """Return the pairs that a takedown request names by pair_id, URL or domain.

    Requests by image_id are ignored here: a takedown of an image also stores requests for the URLs that served it.

    Args:
        lake: the lake with the requests.
        pairs: rows with pair_id and url.

    Returns:
        pair_id, url and `kind`, the kind of the request (the first in alphabetical order if several match).
    """
    return matches(lake, pairs).groupBy("pair_id", "url").agg(F.min("kind").alias("kind"))


def redirected(lake: Lake) -> DataFrame:
    """Return `url` of each image that a request names by a URL, or a domain, to which it was redirected on the way.

    Returns:
        url, and the `kind` and `value` of the request.
    """
    way = F.array_distinct(F.array_compact(F.concat(F.array("final_url"), F.coalesce("redirects", F.array()))))
    steps = lake.read("images").select("url", F.explode(way).alias("step")).where("step <> url")
    found = matches(lake, steps.select(F.col("url").alias("pair_id"), F.col("step").alias("url")))
    return found.select(F.col("pair_id").alias("url"), "kind", "value").distinct()


def unmatched(lake: Lake, asked: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the requests that name no pair of the lake, now or when they were first carried out.

    Args:
        lake: the lake, before anything is removed from it.
        asked: (kind, value), as `value_of` returns them; `takedowns` has them already.
    """
    left = set(asked)
    named = matches(lake, lake.read("pairs")).select("kind", "value").distinct()
    left -= {(row["kind"], row["value"]) for row in named.collect()}
    return sorted(left - earlier(lake))


def earlier(lake: Lake) -> set[tuple[str, str]]:
    """Return the requests that named something when they were first carried out."""
    done = [row for row in lake.rows("takedowns") if row["proof"] is not None]
    return {
        (row["kind"], row["value"])
        for row in done
        if f"{row['kind']} {row['value']}" not in json.loads(row["proof"]).get("unmatched", [])
    }


def matches(lake: Lake, pairs: DataFrame) -> DataFrame:
    """Return pair_id and url of each pair with the `kind` and `value` of each request that names it."""
    if lake.is_empty("takedowns"):
        return pairs.select("pair_id", "url", F.lit("").alias("kind"), F.lit("").alias("value")).where("false")
    requests = lake.read("takedowns").where("kind <> 'image_id'").select("kind", "value").distinct()
    own = F.array(F.concat(F.lit("pair_id "), "pair_id"))
    named = pairs.select("pair_id", "url", F.explode(F.concat(own, names_udf()("url"))).alias("name"))
    asked = requests.select("kind", "value", F.concat_ws(" ", "kind", "value").alias("name"))
    return named.join(asked, "name").drop("name")


def names_of(url: str) -> list[str]:
    """Return, as "kind value", all requests by URL or domain that would name `url`."""
    return [*(f"url {found}" for found in url_hashes(url)), *(f"domain {domain}" for domain in domains_of(url))]


def names_udf() -> Any:
    """Return `names_of` as a function on columns."""

    @F.pandas_udf("array<string>")  # type: ignore[attr-defined,call-overload,untyped-decorator,unused-ignore]
    def names(urls: pd.Series) -> pd.Series:
        return urls.map(names_of)

    return names


@dataclass(frozen=True, slots=True)
class Blocked:
    """What takedown requests name, for the workers.

    Attributes:
        image_ids: images that must not come back, from any URL.
        urls: hashes of URLs, see `url_hash`.
        domains: hosts; their subdomains are meant, too.
    """

    image_ids: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()

    def kind_of(self, url: str) -> str | None:
        """Return the kind of a request that names `url` (url or domain), or None."""
        if self.urls and not self.urls.isdisjoint(url_hashes(url)):
            return "url"
        return "domain" if self.domains and not self.domains.isdisjoint(domains_of(url)) else None


def blocked_by(lake: Lake) -> Blocked:
    """Return what the takedown requests of a lake name."""
    values: dict[str, set[str]] = {"image_id": set(), "url": set(), "domain": set()}
    for row in lake.rows("takedowns", "kind", among=tuple(values)):
        values[row["kind"]].add(row["value"])
    return Blocked(*map(frozenset, values.values()))


def domains_of(url: str) -> list[str]:
    """Return the host of `url` and all its parent domains: a request for example.org also covers img.example.org."""
    names = (host.split(".") for host in hosts_of(url))
    return list(dict.fromkeys(".".join(labels[i:]) for labels in names for i in range(len(labels))))
