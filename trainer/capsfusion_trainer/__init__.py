"""Pretraining of the multimodal model on a pinned snapshot. Reads Delta and Parquet; needs no Spark."""
