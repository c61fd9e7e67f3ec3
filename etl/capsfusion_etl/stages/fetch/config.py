"""Settings of the fetch stage."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from capsfusion_etl.errors import InputError

if TYPE_CHECKING:
    from capsfusion_etl.lake.lake import Lake


@dataclass(frozen=True, slots=True)
class FetchConfig:
    """Limits and politeness of the fetch stage.

    Attributes:
        enabled: whether to fetch images; null: only if the captioner needs them.
        concurrency: requests in flight in one Spark task.
        per_host: requests in flight to one host.
        host_delay_s: least seconds between the starts of two requests to one host.
        timeout_s: seconds for one attempt until the last byte of the body, redirects included.
        retries: further attempts after a timeout, a failed connection or the status 429, 500, 502, 503 or 504.
        max_wait_s: longest Retry-After in seconds; a request that would have to wait longer is not retried.
        max_bytes: largest file in bytes.
        max_pixels: largest image in pixels, checked before it is decoded.
        max_redirects: most redirects of one request.
        resize: longer side in pixels to which larger images are scaled down, as JPEG; null keeps the bytes.
        inline_bytes: an image of more bytes goes to a file in `files` instead of the table; null: none does.
        files: folder or URL of these files; null: `_images` beside the tables.
        user_agent: the User-Agent header; X-Robots-Tag rules may address its product name (up to a slash or space).
        robots: whether to honour X-Robots-Tag.
        proxy: http:// URL of a proxy for every request. Which hosts may be reached is then up to the proxy.
        allow_private: whether to fetch from hosts that are not on the public internet.
    """

    enabled: bool | None = None
    concurrency: int = 128
    per_host: int = 8
    host_delay_s: float = 0.0
    timeout_s: float = 10.0
    retries: int = 2
    max_wait_s: float = 30.0
    max_bytes: int = 20_000_000
    max_pixels: int = 60_000_000
    max_redirects: int = 5
    resize: int | None = None
    inline_bytes: int | None = None
    files: str | None = None
    user_agent: str = "capsfusion-lake (set fetch.user_agent to your contact)"
    robots: bool = True
    proxy: str | None = None
    allow_private: bool = False


def with_files(config: FetchConfig, lake: "Lake") -> FetchConfig:
    """Return settings with a folder for large images, if there may be any.

    Raises:
        InputError: the lake is in a catalog, and no folder is set.
    """
    if config.inline_bytes is None or config.files is not None:
        return config
    if lake.in_catalog:
        raise InputError("fetch.files: this lake has no folder; set one (or a URL) for images above fetch.inline_bytes")
    return replace(config, files=f"{lake.root}/_images")
