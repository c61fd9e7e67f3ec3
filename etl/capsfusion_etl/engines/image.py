"""Pictures as engines want them."""

import base64
import io
from typing import Any

from PIL import Image, ImageOps

KINDS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}  # what servers take


def decode(data: bytes | None) -> Image.Image | str:
    """The picture upright in RGB, or what is wrong with it."""
    if data is None:
        return "no picture"
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"cannot decode the picture: {error}"


def data_url(data: bytes | None) -> str | None:
    """The picture as a data: URL, in its own format where servers take that, else as JPEG; None if it is none.

    Its first bytes are read, not its pixels: the server decodes it anyway.
    """
    if data is None:
        return None
    try:
        with Image.open(io.BytesIO(data)) as opened:
            kind = KINDS.get(opened.format or "")
            if kind is None:
                buffer = io.BytesIO()
                opened.convert("RGB").save(buffer, "JPEG", quality=90)
                data, kind = buffer.getvalue(), "image/jpeg"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def message_content(prompt: str, url: str | None) -> Any:
    """The content of a chat message in OpenAI's form: the prompt, after the picture if there is one."""
    if url is None:
        return prompt
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}]
