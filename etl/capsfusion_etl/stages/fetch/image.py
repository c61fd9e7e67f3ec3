"""Inspect image bytes: decode them, measure them, hash them, and describe the result as a row of `images`."""

import hashlib
import io
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from capsfusion_etl.lake.image_files import store
from capsfusion_etl.stages.fetch.config import FetchConfig

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_ENOUGH = 64  # pixels per side that suffice for the perceptual hash: a JPEG is decoded at a coarser scale
_SIDE, _BITS = 32, 8  # side of the transformed square, and of the square of low frequencies that is kept
_COSINES = 2 * np.cos(np.pi * np.outer(np.arange(_BITS), 2 * np.arange(_SIDE) + 1) / (2 * _SIDE))  # DCT-II


class RefusedError(Exception):
    """A URL yields no usable image.

    Attributes:
        reason: one of REJECT_REASONS["fetch"].
        detail: what was seen.
        retry_after_s: seconds that the server asked to wait, or None.
        status: HTTP status of the last response, or None.
        url: URL of the last response, or None.
        redirects: URLs that redirected before it, in order.
    """

    def __init__(self, reason: str, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.retry_after_s = reason, detail, retry_after_s
        self.status: int | None = None
        self.url: str | None = None
        self.redirects: list[str] = []

    def answered(self, status: int | None, url: str | None, redirects: list[str]) -> Self:
        """Record status and URL of the last response, and the redirects before it; return the error."""
        self.status, self.url, self.redirects = status, url, redirects
        return self


@dataclass(frozen=True, slots=True)
class Inspected:
    """A decoded image.

    Attributes:
        data: the bytes as received, or re-encoded by `resize`.
        format: PIL's name of the format in lower case: jpeg, png...
        width: pixels, after EXIF orientation.
        height: pixels, after EXIF orientation.
        phash: perceptual hash of 64 bits in hex.
        contrast: standard deviation of the grey values, 0 to 127.5.
    """

    data: bytes
    format: str
    width: int
    height: int
    phash: str
    contrast: float


def inspect(data: bytes, *, max_pixels: int, resize: int | None = None) -> Inspected:
    """Decode an image and describe it.

    Args:
        max_pixels: an image of more pixels is refused before any pixel is decoded.
        resize: scale the longer side down to this many pixels and re-encode as JPEG; None keeps the bytes.

    Raises:
        RefusedError: too_large or not_an_image.
    """
    from PIL import Image, UnidentifiedImageError

    from capsfusion_etl.images import flatten, orientation_of, to_rgb, upright

    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > max_pixels:
                raise RefusedError("too_large", f"{opened.width} x {opened.height} pixels")
            kind = (opened.format or "").lower()
            if resize is not None and max(opened.size) > resize:
                small = to_rgb(opened)
                small.thumbnail((resize, resize), Image.Resampling.LANCZOS)
                small.save(out := io.BytesIO(), "JPEG", quality=95)
                data, kind, size, grey = out.getvalue(), "jpeg", small.size, small.convert("L")
            else:
                sideways = orientation_of(opened) in (5, 6, 7, 8)
                size = (opened.height, opened.width) if sideways else opened.size
                opened.draft("L", (_ENOUGH, _ENOUGH))
                grey = flatten(upright(opened)).convert("L")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RefusedError("too_large", str(error).split(",")[0]) from None
    except RefusedError:
        raise
    except UnidentifiedImageError:
        raise RefusedError("not_an_image", f"unknown format ({len(data)} bytes)") from None
    except Exception as error:  # noqa: BLE001  a decoder may raise anything: one bad file must cost one row
        raise RefusedError("not_an_image", f"{type(error).__name__}: {error}"[:200]) from None
    contrast = round(float(np.asarray(grey).std()), 3)
    return Inspected(data, kind, *size, phash(grey), contrast)


def phash(grey: "Picture") -> str:
    """Return the perceptual hash of a grey image: 64 bits in hex.

    A bit is set where one of the 8 x 8 lowest frequencies exceeds their median. The value equals imagehash.phash
    (a test compares), without loading SciPy in each worker.
    """
    from PIL import Image

    pixels = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    low = (_COSINES @ pixels @ _COSINES.T).ravel()
    below, above = np.sort(low)[_BITS * _BITS // 2 - 1 : _BITS * _BITS // 2 + 1]
    return np.packbits(low > (below + above) / 2).tobytes().hex()


@dataclass(slots=True)
class ImageRow:
    """One row of `images` without its run_id; `error` is a reject reason of the fetch stage."""

    url: str
    final_url: str | None = None
    redirects: list[str] | None = None
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
        """Return the row of `images`."""
        values = asdict(self)
        return values | {"bytes": values.pop("data"), "run_id": run_id}

    def describe(self, data: bytes | None, config: FetchConfig, blocked: frozenset[str]) -> None:
        """Inspect the bytes of the image and fill in the columns that follow from them.

        Args:
            data: the bytes; None if they exceed `max_bytes` and were not read; empty if there are none.
            config: limits, and where large images are stored.
            blocked: image_ids of images that were taken down.

        Raises:
            RefusedError: too_large, not_an_image or taken_down.
        """
        if data is None or len(data) > config.max_bytes:
            raise RefusedError("too_large", f"more than {config.max_bytes} bytes")
        if not data:
            raise RefusedError("not_an_image", "no bytes")
        seen = inspect(data, max_pixels=config.max_pixels, resize=config.resize)
        image_id = hashlib.sha256(seen.data).hexdigest()
        if image_id in blocked:
            raise RefusedError("taken_down", "image_id")
        self.width, self.height, self.format = seen.width, seen.height, seen.format
        self.phash, self.contrast = seen.phash, seen.contrast
        self.image_id, self.data = image_id, seen.data
        self.error = self.detail = None
        if config.inline_bytes is not None and len(seen.data) > config.inline_bytes:
            self.path, self.data = store(seen.data, str(config.files), f"{image_id}.{seen.format}"), None

    def refuse(self, refused: RefusedError) -> None:
        """Record why there is no image."""
        self.error, self.detail = refused.reason, refused.detail
