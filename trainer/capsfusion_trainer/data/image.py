"""Pictures as a model sees them: decoded, upright, a square of bytes."""

import io

import numpy as np
import simplejpeg
import torch
from PIL import Image, ImageOps
from torch import Tensor

_ORIENTATION = 0x0112  # EXIF


def decode(data: bytes | None, size: int) -> Tensor | None:
    """(3, size, size) bytes, RGB; None if there is no picture in `data`."""
    if not data:
        return None
    try:
        pixels = _pixels(data, size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # channels last: torch's fast way for bytes
    if image.shape[-2:] != (size, size):
        image = torch.nn.functional.interpolate(image, (size, size), mode="bicubic", antialias=True)
    return image[0]


def _pixels(data: bytes, size: int) -> "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]":
    """(height, width, 3) of a picture; a large JPEG is decoded at 1/2, 1/4 or 1/8, but not below `size`."""
    if simplejpeg.is_jpeg(data):
        with Image.open(io.BytesIO(data)) as header:  # reads no pixels
            upright = header.getexif().get(_ORIENTATION, 1) == 1
            height, width, plain = header.height, header.width, header.mode in ("RGB", "L")
        if plain and upright:
            # Scales between are slower than the whole picture.
            half = {"min_height": size, "min_width": size, "min_factor": 2} if min(height, width) >= 2 * size else {}
            pixels: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]] = simplejpeg.decode_jpeg(data, "RGB", **half)
            return pixels
    with Image.open(io.BytesIO(data)) as opened:
        return np.array(ImageOps.exif_transpose(opened).convert("RGB"))
