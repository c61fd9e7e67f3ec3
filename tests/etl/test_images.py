"""Pixels: upright, 8 bits, on white; and the borders to decoders, which may raise anything."""

import io
import random
import struct
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from capsfusion_etl.engines.image import data_url, decode
from capsfusion_etl.images import orientation_of, to_rgb
from capsfusion_etl.stages.fetch.image import Inspected, RefusedError, inspect
from PIL import Image

MUTATIONS = 20_000


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def gradient(mode: str = "RGB", size: tuple[int, int] = (80, 60)) -> Image.Image:
    return Image.linear_gradient("L").resize(size).convert(mode)


def grey16(scale: int) -> bytes:
    values = (np.arange(64 * 64, dtype=np.uint32).reshape(64, 64) * scale % 65536).astype(np.uint16)
    return encoded(Image.fromarray(values))


def test_16_bit_greyscale_is_not_one_colour() -> None:
    first, second = (inspect(grey16(scale), max_pixels=10**6) for scale in (16, 1021))
    assert min(first.contrast, second.contrast) > 50
    assert first.phash != second.phash


def test_the_clear_shade_of_a_16_bit_picture_is_white() -> None:
    data = io.BytesIO()
    picture = Image.fromarray(np.array([[0, 0], [30_000, 0]], dtype=np.uint16))
    picture.info["transparency"] = 0
    picture.save(data, "PNG", transparency=0)
    assert np.array(to_rgb(Image.open(data)))[..., 0].tolist() == [[255, 255], [117, 255]]


def test_a_black_logo_on_transparent_ground_is_seen() -> None:
    logo = Image.new("RGBA", (80, 60), (0, 0, 0, 0))
    logo.paste((0, 0, 0, 255), (20, 20, 40, 40))
    for image in (logo, logo.quantize(4), logo.convert("LA")):
        seen = inspect(encoded(image), max_pixels=10**6)
        assert seen.contrast > 50
        assert int(seen.phash, 16)
        decoded = decode(encoded(image))
        assert isinstance(decoded, Image.Image)
        assert (decoded.getpixel((0, 0)), decoded.getpixel((30, 30))) == ((255, 255, 255), (0, 0, 0))


@pytest.mark.parametrize("scale", [1.0, 255.0, 9000.0])
def test_floats_keep_their_shades(scale: float) -> None:
    image = Image.fromarray((np.linspace(0, 1, 64 * 64).reshape(64, 64) * scale).astype(np.float32))
    values = np.asarray(to_rgb(image))
    assert (values.min(), values.max()) == (0, 255)


def damaged_exif(orientation: int) -> bytes:
    """A JPEG whose EXIF states an orientation, and resolution and unit as text."""
    entries = [(0x0112, 3, 1, struct.pack("<HH", orientation, 0))]
    entries += [(tag, 2, 12, struct.pack("<I", 8 + 2 + 3 * 12 + 4)) for tag in (0x011A, 0x0128)]
    table = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    block = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", 0) + b"seventy-two\0"
    return encoded(gradient(), "JPEG", exif=b"Exif\0\0" + block)


def test_damage_in_exif_does_not_hide_its_orientation() -> None:
    seen = inspect(damaged_exif(6), max_pixels=10**6)
    assert (seen.width, seen.height) == (60, 80)
    with Image.open(io.BytesIO(damaged_exif(6))) as opened:
        assert orientation_of(opened) == 6
        assert to_rgb(opened).size == (60, 80)


def samples() -> list[bytes]:
    """A small image of each format that Pillow writes here, and one with EXIF."""
    kinds = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "ICO", "PPM", "TGA", "PCX", "DDS", "AVIF", "JPEG2000"]
    found = [damaged_exif(6), grey16(16)]
    for kind in kinds:
        if kind in Image.SAVE or kind in Image.SAVE_ALL:
            found.append(encoded(gradient(), kind))
    return found


@pytest.mark.parametrize(
    "border",
    [
        lambda data: inspect(data, max_pixels=10**6), lambda data: inspect(data, max_pixels=10**6, resize=32),
        decode, data_url,
    ],
    ids=["inspect", "resize", "decode", "data_url"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_no_mutation_of_an_image_gets_past_the_border(border: Callable[[bytes], object]) -> None:
    chance, originals = random.Random(7), samples()
    for _ in range(MUTATIONS // 4):
        data = bytearray(chance.choice(originals))
        for _ in range(chance.randint(1, 12)):
            data[chance.randrange(min(len(data), 600))] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        with suppress(RefusedError):
            assert isinstance(border(bytes(data)), Inspected | Image.Image | str | None)
