"""The operator: a CaptionTrainingRun pins a snapshot, waits for its gate, trains through a PyTorchJob, says how far."""
