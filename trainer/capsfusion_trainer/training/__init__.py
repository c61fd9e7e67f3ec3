"""Parts of the training loop: the optimizer step, ranks, checkpoints, metrics and the export of the model."""
