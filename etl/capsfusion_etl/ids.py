"""Stable identities: a pair keeps its id on every machine and in every run (design section 3)."""

import hashlib
import re
import unicodedata
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

HOST = r"^[A-Za-z]+://(?:[^/?#@]*@)?(\[[^\]]*\]|[^/:?#]*)"  # of an address, for SQL: the first group
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Parameters that name the visitor, never the picture.
_TRACKING = re.compile(r"^(utm_\w+|fbclid|gclid|msclkid|mc_[ce]id)$", re.IGNORECASE)


def canonical_url(url: str) -> str:
    """Spell `url` the one way that all spellings of the same address share.

    Lower-cases scheme and host, drops the default port, the fragment and tracking parameters, and normalises percent
    encoding (RFC 3986, section 6.2). Text that is no URL comes back stripped: judging it is the fetch stage's job.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        return url.strip()
    if not host:
        return url.strip()
    scheme = parts.scheme.lower()
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != _DEFAULT_PORTS.get(scheme):
        netloc = f"{netloc}:{port}"
    if parts.username is not None:
        netloc = f"{parts.netloc.rpartition('@')[0]}@{netloc}"
    path = quote(unquote(parts.path), safe="/:@!$&'()*+,;=-._~") or "/"
    if "%2f" in parts.path.lower():  # an encoded slash is data, not a separator
        path = parts.path
    query = urlencode([(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if not _TRACKING.match(k)])
    return urlunsplit((scheme, netloc, path, query, ""))


def pair_id(url: str, raw_caption: str) -> str:
    """sha256 in hex over (canonical url, raw caption in NFC), a unit separator between the two fields."""
    text = f"{canonical_url(url)}\x1f{unicodedata.normalize('NFC', raw_caption)}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def short_hash(text: str) -> str:
    """First 16 hex digits of sha256: enough to tell prompts and parameter sets apart in a table column."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
