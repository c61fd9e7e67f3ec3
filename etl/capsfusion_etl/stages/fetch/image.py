"""What the fetch is asked for, and what became of one address: a picture or a reason."""

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

_ENOUGH = 64  # pixels of a side that the perceptual hash is made from; a JPEG is not decoded at a finer scale
_ORIENTATION = 0x0112  # EXIF
_SIDE, _BITS = 32, 8  # of the square that is transformed, and of the low frequencies that are kept
_COSINES = 2 * np.cos(np.pi * np.outer(np.arange(_BITS), 2 * np.arange(_SIDE) + 1) / (2 * _SIDE))  # DCT-II


class RefusedError(Exception):
    """This address gives no picture: `reason` from the closed list of the fetch stage, and what was seen.

    `status` and `url` are those of the last answer; None if there was none.
    """

    def __init__(self, reason: str, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.retry_after_s = reason, detail, retry_after_s
        self.status: int | None = None
        self.url: str | None = None

    def answered(self, status: int | None, url: str | None) -> Self:
        """Note the last answer, and return the error."""
        self.status, self.url = status, url
        return self


@dataclass(frozen=True, slots=True)
class Inspected:
    """Width and height in pixels after EXIF orientation; contrast is the standard deviation of grey, 0 to 127.5.

    `data` are the bytes: as they came, or made anew by `resize`.
    """

    data: bytes
    format: str
    width: int
    height: int
    phash: str
    contrast: float


def inspect(data: bytes, *, max_pixels: int, resize: int | None = None) -> Inspected:
    """Decode a picture and describe it; its longer side is brought down to `resize` pixels, as a JPEG.

    Raises:
        RefusedError: too_large or not_an_image; no pixel is decoded of a picture of more than `max_pixels`.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > max_pixels:
                raise RefusedError("too_large", f"{opened.width} x {opened.height} pixels")
            kind = (opened.format or "").lower()
            if resize is not None and max(opened.size) > resize:
                small: Image.Image = ImageOps.exif_transpose(opened).convert("RGB")
                small.thumbnail((resize, resize), Image.Resampling.LANCZOS)
                small.save(out := io.BytesIO(), "JPEG", quality=95)
                data, kind, size, grey = out.getvalue(), "jpeg", small.size, small.convert("L")
            else:
                turned = opened.getexif().get(_ORIENTATION, 1)
                size = (opened.height, opened.width) if turned in (5, 6, 7, 8) else opened.size
                opened.draft("L", (_ENOUGH, _ENOUGH))
                grey = opened.convert("L") if turned == 1 else ImageOps.exif_transpose(opened).convert("L")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RefusedError("too_large", str(error).split(",")[0]) from None
    except RefusedError:
        raise
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError) as error:
        detail = f"{len(data)} bytes that are no picture" if isinstance(error, UnidentifiedImageError) else str(error)
        raise RefusedError("not_an_image", detail) from None
    contrast = round(float(np.asarray(grey).std()), 3)
    return Inspected(data, kind, *size, phash(grey), contrast)


def phash(grey: "Picture") -> str:
    """Perceptual hash of 64 bits in hex: which of the 8 x 8 lowest frequencies are above their median.

    The value is that of imagehash.phash (a test compares), without loading SciPy in each worker.
    """
    from PIL import Image

    pixels = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    low = (_COSINES @ pixels @ _COSINES.T).ravel()
    below, above = np.sort(low)[_BITS * _BITS // 2 - 1 : _BITS * _BITS // 2 + 1]
    return np.packbits(low > (below + above) / 2).tobytes().hex()


@dataclass(slots=True)
class ImageRow:
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

    def describe(self, data: bytes | None, config: FetchConfig, blocked: frozenset[str]) -> None:
        """Fill in what the bytes of a picture tell; None stands for more bytes than are read.

        Raises:
            RefusedError: they are no picture that may be kept.
        """
        if data is None:
            raise RefusedError("too_large", f"more than {config.max_bytes} bytes")
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
        """There is a reason instead of a picture."""
        self.error, self.detail = refused.reason, refused.detail
