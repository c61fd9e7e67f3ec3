"""Measure learned verifiers: how well a score ranks false and broken captions of CapsFusion's release first.

The scores are the likelihood of the caption by a refinement adapter, and its contrast to that without the sources; and
SmolLM2-135M with a LoRA adapter that learns the readers' labels (`labels.jsonl`), or to tell written captions from
corrupted ones. Held-out rows are scored only. docs/decisions/0017 says why none of them is in the judge.

    python benchmarks/verifier.py --triplets triplets.parquet --score likelihood
    python benchmarks/verifier.py --triplets triplets.parquet --score labels        # half an hour on two cores
    python benchmarks/verifier.py --triplets triplets.parquet --score corrupted
"""

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from capsfusion_etl.engines.generation.weights import adapter_folder, smollm2
from capsfusion_etl.judge.grounding import facts_of
from capsfusion_etl.judge.lexicon import free_words
from capsfusion_etl.prompts import load_template, render
from capsfusion_trainer.refine.triplets import is_held_out, read_triplets
from peft import PeftModel
from sklearn.metrics import precision_recall_curve, roc_auc_score
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer
from truth import labelled
from written import written

CLASSES = {"G": " good", "E": " praise", "L": " lost", "F": " false", "B": " broken"}
BATCH, FROZEN, RATE = 16, 15, 4e-4  # rows in a batch, layers that are not trained, learning rate
TAILS = (", which is known for its quality", ", a popular choice among visitors", ", located in the United States")


@dataclass(frozen=True)
class Case:
    """A raw, a synthetic and a fused caption, and the label of the fused one."""

    raw: str
    synthetic: str
    fused: str
    label: str

    @property
    def wrong(self) -> bool:
        """Whether it is false or broken."""
        return self.label in "FB"


def cases(path: str, *, held_out: bool) -> list[Case]:
    """Return the labelled captions of CapsFusion's release; to learn from, also those of this project's fusers."""
    return [
        Case(row.raw, row.synthetic, row.fused, label["label"])
        for label, row in labelled(path)
        if label["held_out"] is held_out
        and (label["fuser"] == "CapsFusion" or (not held_out and label["label"] in "FB"))
    ]


def corrupted(path: str) -> list[Case]:
    """Return written captions, and each with a name, two words or a clause that does not belong there."""
    out, there = list(written(path)), {t.pair_id: t for t in read_triplets(path)}
    good = [t for t in out if not (t.pair_id in there and is_held_out(there[t.pair_id], 0.1))][:1100]
    dice, found = random.Random(1), []
    for triplet, other in zip(good, good[7:] + good[:7], strict=True):
        text, strange = triplet.fused_caption, [f for f in facts_of(other.fused_caption) if f.isalpha()]
        mine, words = [f for f in facts_of(text) if f.isalpha()], text.rstrip(".").split(" ")
        content = [i for i, w in enumerate(words) if len(w) > 3 and w.lower().strip(",") not in free_words()]
        kind = dice.choice(("name", "words", "tail"))
        if kind == "name" and mine and strange:
            text = text.replace(dice.choice(mine), dice.choice(strange), 1)
        elif kind == "words" and len(content) > 2:
            a, b = dice.sample(content, 2)
            words[a], words[b] = words[b], words[a]
            text = " ".join(words) + "."
        else:
            text = text.rstrip(".") + dice.choice(TAILS) + "."
        sources = (triplet.raw_caption, triplet.synthetic_caption)
        found += [Case(*sources, triplet.fused_caption, "G"), Case(*sources, text, "F")]
    return found


class Model:
    """SmolLM2-135M with the adapter smollm2-refine-v2, to score captions or to learn labels."""

    def __init__(self, *, learns: bool) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(smollm2())
        base = AutoModelForCausalLM.from_pretrained(smollm2(), dtype="float32")
        self.model: Any = PeftModel.from_pretrained(base, str(adapter_folder("smollm2-refine-v2")), is_trainable=learns)
        for name, weight in self.model.named_parameters():
            if any(f".layers.{i}." in name for i in range(FROZEN)):
                weight.requires_grad = False
        self.names = torch.tensor([self.tokenizer.encode(name)[0] for name in CLASSES.values()])

    def _hidden(self, rows: Sequence[list[int]]) -> torch.Tensor:
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[self.tokenizer.eos_token_id] * (longest - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        hidden: torch.Tensor = self.model.get_base_model().model(ids, attention_mask=mask).last_hidden_state
        return hidden

    def labels(self, part: Sequence[Case]) -> torch.Tensor:
        """Return logits of shape (cases, classes)."""
        texts = [
            f"Sentence 1: {c.raw[:350]}\nSentence 2: {c.synthetic[:200]}\nFused: {c.fused[:450]}\nVerdict:"
            for c in part
        ]
        rows = [self.tokenizer.encode(text) for text in texts]
        last = self._hidden(rows)[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])]
        weights: torch.Tensor = self.model.get_base_model().lm_head.weight[self.names]
        return last @ weights.T

    def likelihood(self, case: Case, *, sources: bool) -> float:
        """Return the mean log-likelihood of the caption per token, in nats."""
        given = (case.raw, case.synthetic) if sources else ("", "")
        prompt = self.tokenizer.encode(render(load_template("compact-v1"), *given))
        said = self.tokenizer.encode(f" {case.fused}")
        hidden = self._hidden([prompt + said])[0, len(prompt) - 1 : -1]
        return -float(cross_entropy(self.model.get_base_model().lm_head(hidden), torch.tensor(said)))

    def learn(self, part: list[Case], steps: int) -> None:
        """Train the adapter on labels."""
        weights = [w for w in self.model.parameters() if w.requires_grad]
        optimizer, dice = torch.optim.AdamW(weights, lr=RATE), random.Random(0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for step in range(steps):
            batch = dice.sample(part, BATCH)
            loss = cross_entropy(self.labels(batch), torch.tensor([list(CLASSES).index(c.label) for c in batch]))
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if step % 20 == 0:
                print(f"step {step} of {steps}, loss {loss.item():.2f}", flush=True)


@torch.inference_mode()
def report(name: str, test: list[Case], score: Callable[[Case], float]) -> None:
    """Print how well a score ranks the wrong captions first."""
    wrong, scores = [case.wrong for case in test], [score(case) for case in test]
    precision, recall, _ = precision_recall_curve(wrong, scores)
    best = {p: max(r for q, r in zip(precision, recall, strict=True) if q >= p) for p in (0.9, 0.8, 0.6)}
    at = ", ".join(f"{r:.2f} at precision {p}" for p, r in best.items())
    print(f"{name}: {len(test)} captions, AUC {roc_auc_score(wrong, scores):.3f}, recall {at}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triplets", required=True)
    parser.add_argument("--score", choices=("likelihood", "labels", "corrupted"), required=True)
    parser.add_argument("--steps", type=int, default=290)
    options = parser.parse_args()
    test, model = cases(options.triplets, held_out=True), Model(learns=options.score != "likelihood")
    if options.score == "likelihood":
        report("likelihood", test, lambda c: -model.likelihood(c, sources=True))
        contrast = lambda c: model.likelihood(c, sources=False) - model.likelihood(c, sources=True)  # noqa: E731
        report("contrast", test, contrast)
        return
    part = corrupted(options.triplets) if options.score == "corrupted" else cases(options.triplets, held_out=False)
    model.learn(part, options.steps)
    report(options.score, test, lambda c: float(torch.logsumexp(model.labels([c]).log_softmax(1)[0, 3:], 0)))


if __name__ == "__main__":
    main()
