"""What a run does next: pure functions of the run, of its children and of the time."""
