"""What the fetch is asked for, and what became of one address: a picture or a reason."""

import hashlib
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from capsfusion_etl.addresses import RefusedError
from capsfusion_etl.files import store
from capsfusion_etl.look import look


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


@dataclass(slots=True)
class Fetched:
    """One row of `images` but for the run; `error` is a reason of the fetch stage."""

    url: str
    final_url: str | None = None
    image_id: str | None = None
    data: bytes | None = None
    path: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    phash: str | None = None
    contrast: float | None = None
    fetched_at: datetime | None = None
    seconds: float | None = None
    attempts: int = 0
    http_status: int | None = None
    error: str | None = None
    detail: str | None = None

    def as_row(self, run_id: str) -> dict[str, Any]:
        """The row of `images`."""
        values = asdict(self)
        return values | {"bytes": values.pop("data"), "run_id": run_id}

    def describe(self, data: bytes | None, config: FetchConfig, taken_down: frozenset[str]) -> None:
        """Fill in what the bytes of a picture tell; None stands for more bytes than are read.

        Raises:
            RefusedError: they are no picture that may be kept.
        """
        if data is None:
            raise RefusedError("too_large", f"more than {config.max_bytes} bytes")
        seen = look(data, max_pixels=config.max_pixels, resize=config.resize)
        image_id = hashlib.sha256(seen.data).hexdigest()
        if image_id in taken_down:
            raise RefusedError("taken_down", "image_id")
        self.width, self.height, self.format = seen.width, seen.height, seen.format
        self.phash, self.contrast = seen.phash, seen.contrast
        self.image_id, self.data = image_id, seen.data
        self.error = self.detail = None
        if config.inline_bytes is not None and len(seen.data) > config.inline_bytes:
            self.path, self.data = store(seen.data, str(config.files), f"{image_id}.{seen.format}"), None

    def refuse(self, refused: RefusedError) -> None:
        """There is a reason instead of a picture."""
        self.error, self.detail = refused.reason, refused.detail
