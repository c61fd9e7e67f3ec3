"""Spark jobs that turn web image-text pairs into fused captions in Delta tables."""
