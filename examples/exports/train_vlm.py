"""Train a small vision-language model on an export for Hugging Face: a tower, a projection, a language model.

python examples/exports/train_vlm.py EXPORT --vision TOWER --language MODEL [--steps 100] [--batch 8]

TOWER and MODEL are names of the hub or folders. Only the projection and the language model learn.
"""

import argparse

import datasets
import torch
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoTokenizer


class VisionLanguageModel(torch.nn.Module):
    """Image features, projected to the width of the language model, stand before the caption."""

    def __init__(self, vision: str, language: str) -> None:
        super().__init__()
        tower = AutoModel.from_pretrained(vision)
        self.tower = getattr(tower, "vision_model", tower).requires_grad_(False)
        self.language = AutoModelForCausalLM.from_pretrained(language)
        width = self.language.get_input_embeddings().embedding_dim
        self.project = torch.nn.Linear(self.tower.config.hidden_size, width)

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of the captions' tokens.

        Args:
            pixels: (batch, 3, height, width).
            ids: (batch, tokens).
            mask: (batch, tokens), 1 where there is a token.
        """
        with torch.no_grad():
            features = self.tower(pixel_values=pixels).last_hidden_state
        seen = self.project(features)
        whole = torch.cat([seen, self.language.get_input_embeddings()(ids)], 1)
        there = torch.ones(seen.shape[:2], dtype=mask.dtype)
        labels = torch.cat([torch.full(seen.shape[:2], -100), ids.masked_fill(mask == 0, -100)], 1)
        return self.language(inputs_embeds=whole, attention_mask=torch.cat([there, mask], 1), labels=labels).loss


def main() -> None:
    """Train, and print the loss of each tenth step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("export")
    parser.add_argument("--vision", required=True)
    parser.add_argument("--language", required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args()
    processor = AutoImageProcessor.from_pretrained(given.vision)
    tokenizer = AutoTokenizer.from_pretrained(given.language)
    model = VisionLanguageModel(given.vision, given.language)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)

    def collate(rows: list[dict]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        pixels = processor([row["image"].convert("RGB") for row in rows], return_tensors="pt").pixel_values
        texts = tokenizer([row["caption"] + tokenizer.eos_token for row in rows], return_tensors="pt", padding=True)
        return pixels, texts.input_ids, texts.attention_mask

    data = datasets.load_dataset(given.export, split="train").shuffle(seed=0)
    loader = DataLoader(data, given.batch, collate_fn=collate)
    step = 0
    while step < given.steps:
        for batch in loader:
            loss = model(*batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % 10 == 0:
                print(f"step {step}  loss {loss.item():.3f}", flush=True)
            step += 1
            if step == given.steps:
                break


if __name__ == "__main__":
    main()
