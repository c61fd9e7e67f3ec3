"""The multimodal model: vision tower, bridge and language model."""
