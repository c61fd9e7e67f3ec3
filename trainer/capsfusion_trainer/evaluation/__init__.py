"""Evaluation of trained models: held-out loss, caption metrics, multiple choice, clozes."""
