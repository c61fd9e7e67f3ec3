"""Images in the forms that engines need: decoded pixels, and data: URLs for servers."""

import base64
import io
from typing import Any

from PIL import Image

from capsfusion_etl.images import to_rgb

# Formats that servers accept.
KINDS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}


def decode(data: bytes | None) -> Image.Image | str:
    """Return the image in RGB, rotated as its EXIF orientation says, or why it cannot be decoded."""
    if data is None:
        return "no picture"
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return to_rgb(opened)
    except Exception as error:  # noqa: BLE001  a decoder may raise anything: one bad file must cost one row
        return f"cannot decode the image: {type(error).__name__}: {error}"


def data_url(data: bytes | None) -> str | None:
    """Return the image as a data: URL; None if it cannot be opened.

    Formats that servers accept keep their bytes: only the header is read, because the server decodes the pixels anyway.
    Others are converted to JPEG.
    """
    if data is None:
        return None
    try:
        with Image.open(io.BytesIO(data)) as opened:
            kind = KINDS.get(opened.format or "")
            if kind is None:
                buffer = io.BytesIO()
                to_rgb(opened).save(buffer, "JPEG", quality=90)
                data, kind = buffer.getvalue(), "image/jpeg"
    except Exception:  # noqa: BLE001  a decoder may raise anything: one bad file must cost one row
        return None
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def message_content(prompt: str, url: str | None) -> Any:
    """Return the content of a chat message for the OpenAI API: the image at `url`, if any, then the prompt."""
    if url is None:
        return prompt
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}]
