"""Caption image files with a trained model."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from capsfusion_etl.errors import InputError

from capsfusion_trainer.data.image import decode
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.model.decoding import Decoding, benchmark_caption
from capsfusion_trainer.training.distributed import World

BATCH = 16


def read_image(path: Path, model: CaptionModel) -> torch.Tensor:
    """Return an image as (3, S, S) uint8, S being the model's image size.

    Raises:
        InputError: The file is missing, unreadable or not an image.
    """
    try:
        found = decode(path.read_bytes(), model.image_size)
    except OSError as error:
        raise InputError(f"cannot read the image {path}: {error.strerror}") from None
    if found is None:
        raise InputError(f"{path} is not an image, or is damaged")
    return found


def described(
    model: CaptionModel, images: Iterable[Path], decoding: Decoding | None = None
) -> Iterator[tuple[Path, str | InputError]]:
    """Yield each image, in order, with its caption, or with the reason why it cannot be read."""
    left = iter(images)
    while paths := list(islice(left, BATCH)):
        read = [_read_or_why(path, model) for path in paths]
        good = [image for image in read if isinstance(image, torch.Tensor)]
        said = iter(model.generate(torch.stack(good), decoding) if good else ())
        for path, image in zip(paths, read, strict=True):
            yield path, image if isinstance(image, InputError) else next(said)


def benchmark_captions(model: CaptionModel, images: Sequence[Path], decoding: Decoding, world: World) -> list[str]:
    """Return the caption of each image as a benchmark scores it (see `benchmark_caption`). Each rank captions a share.

    Raises:
        InputError: An image cannot be read.
    """
    return world.spread(images, lambda share: _benchmark_captions(model, share, decoding))


def _benchmark_captions(model: CaptionModel, images: Iterable[Path], decoding: Decoding) -> Iterator[str]:
    for _, said in described(model, images, decoding):
        if isinstance(said, InputError):
            raise said
        yield benchmark_caption(said)


def _read_or_why(path: Path, model: CaptionModel) -> torch.Tensor | InputError:
    try:
        return read_image(path, model)
    except InputError as error:
        return error
