"""Choose the checkpoint by what is wanted of a fuser: accepted captions that keep the facts, not a low loss."""

from collections.abc import Sequence
from typing import Any

import torch
from capsfusion_etl.judge import CHECKS, Row
from capsfusion_etl.prompts import load_template, render
from trl import SFTTrainer

from capsfusion_trainer.refine.triplets import Triplet

METRIC = "eval_kept"
_BATCH = 32


class SelectingTrainer(SFTTrainer):
    """TRL's trainer, whose evaluation also generates captions for `triplets` and judges them.

    It adds `eval_accepted`, the share of captions that the judge accepts, and `eval_kept`: the share of the facts of
    the raw captions that accepted captions keep; a rejected caption keeps none, and one without facts to keep counts
    as 1 if it is accepted.
    """

    def __init__(self, *, triplets: Sequence[Triplet], prompt: str, max_new_tokens: int, **options: Any) -> None:
        super().__init__(**options)
        self._triplets, self._template, self._longest = triplets, load_template(prompt), max_new_tokens

    def evaluation_loop(self, *arguments: Any, **options: Any) -> Any:
        """Add the metrics of the generated captions, if there are triplets for them, before anybody decides by them."""
        output = super().evaluation_loop(*arguments, **options)
        if self._triplets:
            kept = [kept_facts(t, caption) for t, caption in zip(self._triplets, self._captions(), strict=True)]
            metrics: dict[str, float] = output.metrics or {}
            metrics["eval_accepted"] = sum(k is not None for k in kept) / len(kept)
            metrics[METRIC] = sum(k or 0.0 for k in kept) / len(kept)
        return output

    def _captions(self) -> list[str]:
        """Return a greedy caption for each triplet. Each rank generates a share, as many batches as the others."""
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        share = -(-len(self._triplets) // ranks)
        mine = [self._triplets[min(i, len(self._triplets) - 1)] for i in range(rank * share, (rank + 1) * share)]
        said = [text for start in range(0, share, _BATCH) for text in self._generated(mine[start : start + _BATCH])]
        if ranks > 1:
            shares: list[list[str]] = [[] for _ in range(ranks)]
            torch.distributed.all_gather_object(shares, said)
            said = [text for part in shares for text in part]
        return said[: len(self._triplets)]

    @torch.no_grad()
    def _generated(self, triplets: Sequence[Triplet]) -> list[str]:
        tokenizer: Any = self.processing_class
        model: Any = self.model_wrapped
        prompts = [render(self._template, t.raw_caption, t.synthetic_caption) for t in triplets]
        side, tokenizer.padding_side = tokenizer.padding_side, "left"
        inputs = tokenizer(prompts, return_tensors="pt", padding=True).to(self.accelerator.device)
        tokenizer.padding_side = side
        model = model if hasattr(model, "generate") else self.accelerator.unwrap_model(model)
        training = model.training
        model.eval()
        out = model.generate(
            **inputs, do_sample=False, max_new_tokens=self._longest, pad_token_id=tokenizer.eos_token_id,
            synced_gpus=self.accelerator.num_processes > 1,
        )  # fmt: skip
        model.train(training)
        said: list[str] = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip().split("\n")[0] for text in said]


def kept_facts(triplet: Triplet, caption: str) -> float | None:
    """Return the share of facts that an accepted caption keeps; None for a rejected one."""
    row = Row.of(triplet.raw_caption, triplet.synthetic_caption, caption)
    if any(check(row) is not None for check in CHECKS):
        return None
    return 1.0 if row.grounding.recall is None else row.grounding.recall
