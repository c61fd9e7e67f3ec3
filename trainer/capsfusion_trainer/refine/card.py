"""The model card that goes with the weights."""

from pathlib import Path
from typing import Any


def write_card(folder: Path, result: dict[str, Any]) -> None:
    """Write README.md beside the weights: what was trained on what, and how it scored."""
    config = result["config"]
    left = ", ".join(f"{name} {count}" for name, count in sorted(result["left_out"].items()))
    text = f"""# Refinement model ({config["recipe"]})

Merges a raw and a synthetic caption of a picture into one sentence. Base: {Path(result["base"]).name}.

- Triplets: {result["triplets"]} trained on, chosen by the judge; left out: {left or "none"}.
- Held out by hash of the pair: best loss {result["best_held_out_loss"]}, after {result["steps"]} steps at most.
- Prompt: `{config["prompt"]}`; LoRA rank {config["lora_rank"]}, learning rate {config["learning_rate"]}, batch
  {config["batch_size"]}.
- Licence: the weights follow the base model's; the terms of the triplets are their owner's.
- It copies what the sentences say: a false name in the alt-text stays a false name.
"""
    (folder / "README.md").write_text(text, encoding="utf-8")
