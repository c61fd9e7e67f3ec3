"""Manners and limits of the fetch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FetchConfig:
    """Manners and limits of the fetch.

    `enabled`: null means "if the captioner looks at pictures". `concurrency`: addresses of a task at once, `per_host`:
    of one host, `host_delay_s` between two of them. `timeout_s` is for the whole answer, `max_bytes` for the file,
    `max_pixels` for the decoded picture. A host that asks to wait longer than `max_wait_s` is not waited for. `resize`:
    longer side in pixels; null keeps the bytes. A picture of more than `inline_bytes` goes to a file in `files` (by
    default `_images` beside the tables) instead of the table. `robots`: honour X-Robots-Tag. `proxy` is an http://
    address that carries every request.
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
