"""The model card of a fine-tuned fuser."""

from pathlib import Path
from typing import Any


def write_card(folder: Path, result: dict[str, Any]) -> None:
    """Write README.md beside the weights: base model, data, settings and held-out loss."""
    config = result["config"]
    left = ", ".join(f"{name} {count}" for name, count in sorted(result["left_out"].items()))
    text = f"""# Refinement model ({config["recipe"]})

Merges a raw and a synthetic caption of an image into one sentence. Base: {Path(result["base"]).name}.

- Triplets: {result["triplets"]} in training, selected by the judge; left out: {left or "none"}.
- Held out by hash of the pair: best `{result["chosen_by"]}` {result["best"]}, within {result["steps"]} steps.
- Prompt: `{config["prompt"]}`; LoRA rank {config["lora_rank"]}, learning rate {config["learning_rate"]}, batch
  {config["batch_size"]}.
- Licence: that of the base model for the weights; the triplets keep their owner's terms.
- The model copies what the captions say: a false name in the alt-text stays a false name.
"""
    (folder / "README.md").write_text(text, encoding="utf-8")
