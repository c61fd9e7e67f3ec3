"""The Kubernetes operator of CaptionTrainingRun: pins a snapshot, checks its gate, trains it through PyTorchJobs."""
