"""Test world knowledge with sentences about images, cut before a name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch

from capsfusion_trainer.evaluation.captions import BATCH, read_image
from capsfusion_trainer.evaluation.entries import Entry, entries, read_json_lines
from capsfusion_trainer.evaluation.likelihood import Asked, ids_of, mean_log_likelihoods
from capsfusion_trainer.evaluation.ptb_tokenizer import tokens as words_of
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.model.decoding import has_subwords
from capsfusion_trainer.training.distributed import World

DISTRACTORS = 9  # wrong names beside an answer, drawn from the answers of the other sentences
_GREEDY_TOKENS = 12  # of subwords


@dataclass(frozen=True, slots=True)
class Cloze:
    """A sentence about an image, cut before a name; each of `answers` completes it, none of `distractors` does."""

    image: str
    prompt: str
    answers: tuple[str, ...]
    distractors: tuple[str, ...] = ()

    def is_answered(self, likely: Sequence[float]) -> bool:
        """Whether an answer is the likeliest; `likely` are the likelihoods of all answers and then all distractors."""
        return max(range(len(likely)), key=likely.__getitem__) < len(self.answers)


def read_clozes(path: Path) -> list[Cloze]:
    """Return the clozes in a file of JSON lines {"image", "prompt", "answers", "distractors"?}.

    Raises:
        InputError: The file is unreadable or has another format.
    """
    return with_distractors([_cloze(entry) for entry in entries(read_json_lines(path), str(path))])


def _cloze(entry: Entry) -> Cloze:
    answers = entry.texts("answers")
    if not all(map(words_of, answers)):  # every completion would begin with it
        raise entry.wrong("answers", "texts with at least a word each")
    wrong = entry.texts("distractors") if entry.row.get("distractors") is not None else ()
    right = [words_of(answer) for answer in answers]
    if any(not words_of(name) or words_of(name) in right for name in wrong):
        raise entry.wrong("distractors", "texts with at least a word each, none of them an answer")
    return Cloze(entry.text("image"), entry.text("prompt"), answers, wrong)


def with_distractors(clozes: Sequence[Cloze]) -> list[Cloze]:
    """Return the clozes; those without distractors get up to `DISTRACTORS` answers of others, always the same."""
    names = sorted({answer for cloze in clozes for answer in cloze.answers})
    found = []
    for number, cloze in enumerate(clozes):
        right = {tuple(words_of(answer)) for answer in cloze.answers}
        others = [name for name in names if tuple(words_of(name)) not in right]
        drawn = tuple(Random(number).sample(others, min(DISTRACTORS, len(others))))
        found.append(replace(cloze, distractors=cloze.distractors or drawn))
    return found


def cloze_scores(model: CaptionModel, clozes: Sequence[Cloze], images: Path, world: World) -> dict[str, float]:
    """Return the scores of a model.

    Returns:
        "cloze accuracy": share of sentences whose greedy completion starts with an answer. "cloze choice accuracy":
        share of those with distractors in which an answer is more likely (mean log-likelihood per token) than every
        distractor, and "cloze choice chance", what guessing reaches; both are absent if no sentence has distractors.

    Raises:
        InputError: An image cannot be read.
    """
    found = world.spread(clozes, lambda share: _answered(model, share, images))
    scores = {"cloze accuracy": sum(greedy for greedy, _ in found) / len(found)}
    chosen = [(cloze, choice) for cloze, (_, choice) in zip(clozes, found, strict=True) if choice is not None]
    if chosen:
        scores["cloze choice accuracy"] = sum(choice for _, choice in chosen) / len(chosen)
        chances = [len(c.answers) / (len(c.answers) + len(c.distractors)) for c, _ in chosen]
        scores["cloze choice chance"] = sum(chances) / len(chances)
    return scores


def _answered(model: CaptionModel, clozes: Sequence[Cloze], images: Path) -> Iterator[tuple[bool, bool | None]]:
    """Yield whether each cloze is completed greedily, and by choice (None without distractors)."""
    longest = _GREEDY_TOKENS if has_subwords(model) else model.config.max_tokens
    for start in range(0, len(clozes), BATCH):
        some = clozes[start : start + BATCH]
        pictures = torch.stack([read_image(images / cloze.image, model) for cloze in some])
        asked = [Asked(cloze.prompt, (*cloze.answers, *cloze.distractors)) for cloze in some]
        likely = mean_log_likelihoods(model, pictures, asked)
        for cloze, picture, means in zip(some, pictures, likely, strict=True):
            said = words_of(model.complete(picture[None], ids_of(model, cloze.prompt), max_new_tokens=longest))
            greedy = any(said[: len(words)] == words for words in map(words_of, cloze.answers))
            yield greedy, cloze.is_answered(means) if cloze.distractors else None
