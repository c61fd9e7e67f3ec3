"""Trains the multimodal model on a pinned snapshot, and fine-tunes fusers. Reads Delta and Parquet without Spark."""
