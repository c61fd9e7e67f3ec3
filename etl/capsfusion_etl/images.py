"""Pixels as every part of this project sees them: upright, 8 bits per channel, transparency on white.

Pillow opens far more than it can convert: 16-bit greyscale is clipped to white, transparent pixels turn black, and a
damaged EXIF block raises errors of any type. The functions here are the one place that knows.
"""

from typing import Any

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112  # EXIF tag
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) if there is none or the EXIF block is damaged."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  EXIF of cameras and editors raises anything: struct.error, TypeError, KeyError
        return 1
    return found if found in _TRANSPOSE else 1


def upright(image: Image.Image) -> Image.Image:
    """Rotate and mirror an image as its EXIF orientation says. EXIF is not written again: damage in it is harmless."""
    method = _TRANSPOSE.get(orientation_of(image))
    return image if method is None else image.transpose(method)


def flatten(image: Image.Image) -> Image.Image:
    """Return the image with 8 bits per channel, as greyscale ("L") or RGB, transparent pixels on white."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        grey, clear = _to_bytes(values), image.info.get("transparency")
        return Image.fromarray(np.where(values == clear, np.uint8(255), grey) if isinstance(clear, int) else grey)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        ground = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(ground, opaque).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image upright, as 8-bit RGB on white."""
    return flatten(upright(image)).convert("RGB")


def _to_bytes(values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Scale grey values to 0..255 from the first range that holds them: 0..1 (floats), 0..255, 0..65535, their own."""
    grey = np.nan_to_num(values.astype(np.float64))
    low, high = float(grey.min()), float(grey.max())
    ranges = [1.0, 255.0] if values.dtype.kind == "f" else [65535.0] if values.dtype == np.uint16 else [255.0, 65535.0]
    top = next((top for top in ranges if low >= 0 and high <= top), None)
    if top is None:
        grey, top = grey - low, max(high - low, 1.0)
    scaled: np.ndarray[Any, np.dtype[np.uint8]] = np.round(grey * (255.0 / top)).astype(np.uint8)
    return scaled
