"""Answer multiple-choice questions about images, as in SEED-Bench, by likelihood."""

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from capsfusion_etl.errors import InputError

from capsfusion_trainer.evaluation.captions import BATCH, read_image
from capsfusion_trainer.evaluation.entries import Entry, entries, read_json
from capsfusion_trainer.evaluation.likelihood import Asked, mean_log_likelihoods
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.training.distributed import World

_ONE_IMAGE = ("image", "single image")  # data_type in SEED-Bench and SEED-Bench-2


@dataclass(frozen=True, slots=True)
class Question:
    """A multiple-choice question about an image; `right` is the index of the answer, `kind` its question_type_id."""

    image: str
    text: str
    choices: tuple[str, ...]
    right: int
    kind: str

    @property
    def asked(self) -> Asked:
        """The question in the form of SEED-Bench's code for InstructBLIP."""
        return Asked(f"Question: {self.text}\nAnswer:", self.choices)


def read_questions(path: Path) -> list[Question]:
    """Return the image questions of a SEED-Bench file.

    The format is {"questions": [{"question", "choice_a"..., "answer", "data_id"}]}.

    Raises:
        InputError: The file is unreadable or has another format.
    """
    rows = list(entries(Entry(read_json(path), str(path)).row.get("questions"), f"{path}: questions"))
    kinds = [row.text("data_type", default="image") for row in rows]
    found = [_question(row) for row, kind in zip(rows, kinds, strict=True) if kind.lower() in _ONE_IMAGE]
    if not found:
        raise InputError(f"{path} has no question about a single image: its data_type is {', '.join(sorted({*kinds}))}")
    return found


def _question(entry: Entry) -> Question:
    keys = [f"choice_{letter}" for letter in string.ascii_lowercase if f"choice_{letter}" in entry.row]
    choices = tuple(str(entry.name(key)).strip() for key in keys)
    right = f"choice_{entry.text('answer').lower()}"
    if len(keys) < 2 or right not in keys:
        raise entry.wrong(
            "answer", f"the letter of one of at least two choices ({', '.join(keys) or 'there are none'})"
        )
    if wrong := [key for key, choice in zip(keys, choices, strict=True) if not choice or choices.count(choice) > 1]:
        raise entry.wrong(wrong[-1], "a text that no other choice has")
    kind = str(entry.row.get("question_type_id", ""))
    return Question(str(entry.name("data_id")), entry.text("question"), choices, keys.index(right), kind)


def accuracy(model: CaptionModel, questions: Sequence[Question], images: Path, world: World) -> dict[str, float]:
    """Return the share of questions answered correctly: over all of them, and for each kind.

    The answer is the choice whose tokens have the highest mean log-likelihood after the question.
    """
    found = world.spread(questions, lambda share: choose(model, share, images))
    right: dict[str, list[bool]] = {"all": []}
    for question, answer in zip(questions, found, strict=True):
        for name in ("all", *([f"type {question.kind}"] if question.kind else ())):
            right.setdefault(name, []).append(answer == question.right)
    return {name: sum(found) / len(found) for name, found in right.items()}


def choose(model: CaptionModel, questions: Sequence[Question], images: Path) -> Iterator[int]:
    """Yield the index of the most likely choice of each question.

    Raises:
        InputError: An image cannot be read.
    """
    for start in range(0, len(questions), BATCH):
        some = questions[start : start + BATCH]
        pictures = torch.stack([read_image(images / question.image, model) for question in some])
        for means in mean_log_likelihoods(model, pictures, [question.asked for question in some]):
            yield max(range(len(means)), key=means.__getitem__)
