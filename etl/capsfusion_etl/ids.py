"""Stable identities: a pair keeps its id on every machine and in every run."""

import hashlib
import re
import unicodedata
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import idna

from capsfusion_etl.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# Group 1 is the host, without user information, port and trailing dot.
_HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#]*@)?(\[[^\]]*\]|[^/:?#]*?)\.?(?:[:/?#]|$)"
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Parameters that identify the visitor, never the image.
_TRACKING = re.compile(r"^(utm_\w+|fbclid|gclid|msclkid|mc_[ce]id)$", re.IGNORECASE)


def is_name(text: str) -> bool:
    """Return whether `text` may name a snapshot, a holder, a source or a prompt.

    Such names become file names and SQL literals, so they hold only ASCII letters, digits, `.`, `_` and `-`, begin
    with a letter or a digit, and have at most 128 characters.
    """
    return _NAME.fullmatch(text) is not None


def check_name(text: str, what: str) -> str:
    """Return `text` if it is a name (see `is_name`).

    Args:
        text: the name to check.
        what: what it names, for the message: snapshot, holder...

    Raises:
        InputError: `text` is not a name.
    """
    if not is_name(text):
        raise InputError(
            f"{text[:130]!r} cannot be the name of a {what}: a name has letters, digits, '.', '_' and '-', at most "
            "128 of them, and begins with a letter or a digit"
        )
    return text


def host_of(url: str) -> str:
    """Return the host of `url` in lower case and punycode, without a trailing dot; empty if there is none.

    An IPv6 address keeps its brackets. `host_sql` is the same rule for a column.
    """
    host = _host_as_written(url)
    return f"[{host}]" if ":" in host else ascii_host(host)


def hosts_of(url: str) -> list[str]:
    """Return the names by which a request may mean the host of `url`: as `host_of`, and as requests stored it before.

    Before, hosts were brought to ASCII by IDNA 2003, where `ß` was `ss`.
    """
    now, written = host_of(url), _host_as_written(url)
    return [now] if written.isascii() else list(dict.fromkeys((now, _by_idna_2003(written))))


def _host_as_written(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        return (parts.hostname or "").rstrip(".") if parts.scheme else ""
    except ValueError:
        return ""


def ascii_host(host: str) -> str:
    """Return a host in punycode, as the fetcher asks for it: by IDNA 2008, where `ß` is a letter of its own."""
    if host.isascii():
        return host
    try:
        return idna.encode(host, uts46=True).decode()
    except UnicodeError:  # IDNAError is one; the older rule allows some that 2008 does not
        return _by_idna_2003(host)


def _by_idna_2003(host: str) -> str:
    try:
        return host.encode("idna").decode()
    except UnicodeError:  # a label that it does not allow, either
        return host


def host_sql(column: str) -> str:
    """Return SQL for the host of the URLs in `column`: as `host_of`, but without punycode."""
    return f"lower(regexp_extract({column}, r'{_HOST}', 1))"


def canonical_url(url: str) -> str:
    """Return the canonical form of `url`, which all spellings of the same URL share.

    Lower-cases scheme and host, drops the default port, the fragment and tracking parameters, and normalises percent
    encoding (RFC 3986, section 6.2). An invalid URL is only stripped: the fetch stage rejects it.
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


def spellings_of(url: str) -> list[str]:
    """Return the canonical forms by which a request may name `url`: as it is written, and with its host in ASCII.

    `canonical_url` keeps the letters and the trailing dot of a host, since pair_ids depend on it.
    """
    written = canonical_url(url)
    try:
        parts = urlsplit(written)
        host = ascii_host((parts.hostname or "").rstrip("."))
        plain = parts.netloc.replace(parts.hostname or "", host, 1) if host else parts.netloc
    except ValueError:
        return [written]
    other = urlunsplit(parts._replace(netloc=plain))
    return [written] if other == written else [written, other]


def pair_id(url: str, raw_caption: str) -> str:
    """Return the sha256 (hex) of the canonical URL and the raw caption in NFC, with a unit separator between them."""
    text = f"{canonical_url(url)}\x1f{unicodedata.normalize('NFC', raw_caption)}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def short_hash(text: str) -> str:
    """Return the first 16 hex digits of the sha256 of `text`: enough to tell prompts and parameter sets apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
