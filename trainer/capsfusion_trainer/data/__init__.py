"""From a snapshot to batches of tensors: pin it, read its row groups, order the rows, decode the images."""
