"""Decode images for the model: upright, RGB, resized to a square."""

import io

import numpy as np
import simplejpeg
import torch
from capsfusion_etl.images import orientation_of, to_rgb
from PIL import Image
from torch import Tensor


def decode(data: bytes | None, size: int) -> Tensor | None:
    """Return an image as RGB, (3, size, size) uint8; None if `data` is missing or cannot be decoded."""
    if not data:
        return None
    try:
        pixels = _pixels(data, size)
    except Exception:  # noqa: BLE001  a decoder may raise anything: one bad image weighs 0
        return None
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # channels last: torch's fast path for uint8
    if image.shape[-2:] != (size, size):
        image = torch.nn.functional.interpolate(image, (size, size), mode="bicubic", antialias=True)
    return image[0]


def _pixels(data: bytes, size: int) -> "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]":
    """Return (height, width, 3). A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, but not below `size`."""
    if simplejpeg.is_jpeg(data):
        with Image.open(io.BytesIO(data)) as header:  # decodes no pixels
            upright = orientation_of(header) == 1
            height, width, plain = header.height, header.width, header.mode in ("RGB", "L")
        if plain and upright:
            # Other scales are slower to decode than the full size.
            half = {"min_height": size, "min_width": size, "min_factor": 2} if min(height, width) >= 2 * size else {}
            pixels: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]] = simplejpeg.decode_jpeg(data, "RGB", **half)
            return pixels
    with Image.open(io.BytesIO(data)) as opened:
        return np.array(to_rgb(opened))
