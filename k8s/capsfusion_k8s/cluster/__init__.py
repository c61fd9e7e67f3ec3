"""Watch runs and their children in a cluster, and carry out what `planning` decides."""
