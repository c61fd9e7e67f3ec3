"""Tiny vision towers with random weights, saved as people publish theirs."""

from pathlib import Path

from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    ResNetConfig,
    ResNetModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    TimmWrapperConfig,
    TimmWrapperModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)


def vit(folder: Path) -> None:
    ViTModel(ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                       image_size=32, patch_size=8)).save_pretrained(folder)  # fmt: skip
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def clip(folder: Path) -> None:
    CLIPVisionModel(CLIPVisionConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                                     image_size=32, patch_size=8)).save_pretrained(folder)  # fmt: skip
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)


def timm(folder: Path) -> None:
    shape = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8}
    pixels = {"input_size": [3, 32, 32], "mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2], "num_features": 32}
    config = TimmWrapperConfig(
        architecture="vit_tiny_patch16_224", model_args=shape, pretrained_cfg=pixels, num_classes=0, num_features=32
    )
    TimmWrapperModel(config).save_pretrained(folder)


def siglip(folder: Path) -> None:
    """The whole model, as people have it: only its image tower is used."""
    part = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    shape = SiglipConfig(
        text_config={**part, "vocab_size": 50}, vision_config={**part, "image_size": 32, "patch_size": 8}
    )
    SiglipModel(shape).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def convolutional(folder: Path) -> None:
    """A tower of timm whose features are a map, (B, width, H, W)."""
    pixels = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "num_features": 512}
    config = TimmWrapperConfig(
        architecture="resnet10t", pretrained_cfg=pixels, num_classes=0, num_features=512, do_pooling=False
    )
    TimmWrapperModel(config).save_pretrained(folder)


def resnet(folder: Path) -> None:
    """A convolutional tower of transformers."""
    ResNetModel(ResNetConfig(embedding_size=16, hidden_sizes=[16, 24], depths=[1, 1])).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
