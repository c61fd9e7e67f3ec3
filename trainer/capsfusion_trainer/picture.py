"""Pictures as a model sees them: decoded, upright, a square of bytes."""

import io

import simplejpeg
import torch
from PIL import Image, ImageOps
from torch import Tensor

_ORIENTATION = 0x0112  # EXIF


def decode(data: bytes | None, size: int) -> Tensor | None:
    """(3, size, size) bytes, RGB; None if there is no picture in `data`.

    A JPEG is decoded at the smallest scale of 1/8 to 8/8 that is not below `size`, which is what the resize needs.
    """
    if not data:
        return None
    try:
        square = _opened(data, size).resize((size, size), Image.Resampling.BICUBIC)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    pixels = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).view(size, size, 3)
    return pixels.permute(2, 0, 1)


def _opened(data: bytes, size: int) -> Image.Image:
    if simplejpeg.is_jpeg(data):
        with Image.open(io.BytesIO(data)) as header:  # reads no pixels
            turned = header.getexif().get(_ORIENTATION, 1)
            plain = header.mode in ("RGB", "L")
        if plain:
            array = simplejpeg.decode_jpeg(data, "RGB", min_height=size, min_width=size)
            picture = Image.fromarray(array)
            if turned != 1:
                picture.getexif()[_ORIENTATION] = turned
                picture = ImageOps.exif_transpose(picture)
            return picture
    with Image.open(io.BytesIO(data)) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")
