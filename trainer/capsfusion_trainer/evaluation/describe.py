"""Apply a trained model: caption images, answer multiple-choice questions by likelihood, complete sentences."""

import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from capsfusion_etl.errors import InputError

from capsfusion_trainer.data.image import decode
from capsfusion_trainer.evaluation.entries import Entry, entries, read_json, read_json_lines
from capsfusion_trainer.evaluation.ptb_tokenizer import tokens as words_of
from capsfusion_trainer.model.caption_model import CaptionModel

BATCH = 16
_ONE_IMAGE = ("image", "single image")  # data_type in SEED-Bench and SEED-Bench-2
BEAMS, MAX_TOKENS = 5, 20  # for captioning, as in Emu and CapsFusion


def read_image(path: Path, model: CaptionModel) -> torch.Tensor:
    """Return an image as (3, S, S) uint8, S being the model's image size.

    Raises:
        InputError: The file is missing, unreadable or not an image.
    """
    try:
        found = decode(path.read_bytes(), model.image_size)
    except OSError as error:
        raise InputError(f"cannot read the image {path}: {error.strerror}") from None
    if found is None:
        raise InputError(f"{path} is not an image, or is damaged")
    return found


def described(
    model: CaptionModel, images: Iterable[Path], *, beams: int = BEAMS, max_tokens: int = MAX_TOKENS
) -> Iterator[tuple[Path, str | InputError]]:
    """Yield each image, in order, with its caption, or with the reason why it cannot be read."""
    left = iter(images)
    while paths := list(islice(left, BATCH)):
        read = [_read_or_why(path, model) for path in paths]
        good = [image for image in read if isinstance(image, torch.Tensor)]
        said = iter(model.generate(torch.stack(good), beams=beams, max_tokens=max_tokens) if good else ())
        for path, image in zip(paths, read, strict=True):
            yield path, image if isinstance(image, InputError) else next(said)


def _read_or_why(path: Path, model: CaptionModel) -> torch.Tensor | InputError:
    try:
        return read_image(path, model)
    except InputError as error:
        return error


def captions(
    model: CaptionModel, images: Iterable[Path], *, beams: int = BEAMS, max_tokens: int = MAX_TOKENS
) -> Iterator[str]:
    """Yield a caption for each image, in order.

    Raises:
        InputError: An image cannot be read.
    """
    for _, said in described(model, images, beams=beams, max_tokens=max_tokens):
        if isinstance(said, InputError):
            raise said
        yield said


@dataclass(frozen=True, slots=True)
class Question:
    """A multiple-choice question about an image; `right` is the index of the answer, `kind` its question_type_id."""

    image: str
    text: str
    choices: tuple[str, ...]
    right: int
    kind: str


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
    choices = tuple(str(entry.row[key]) for key in keys)
    right = f"choice_{entry.text('answer').lower()}"
    if len(keys) < 2 or right not in keys:
        raise entry.wrong(
            "answer", f"the letter of one of at least two choices ({', '.join(keys) or 'there are none'})"
        )
    kind = str(entry.row.get("question_type_id", ""))
    return Question(str(entry.name("data_id")), entry.text("question"), choices, keys.index(right), kind)


def accuracy(model: CaptionModel, questions: list[Question], images: Path) -> dict[str, float]:
    """Return the share of questions that `choose` answers correctly: over all of them, and for each kind."""
    right: dict[str, list[bool]] = {"all": []}
    for question in questions:
        image = read_image(images / question.image, model)
        found = choose(model, image, question.text, question.choices) == question.right
        right["all"].append(found)
        if question.kind:
            right.setdefault(f"type {question.kind}", []).append(found)
    return {name: sum(found) / max(len(found), 1) for name, found in right.items()}


@torch.inference_mode()
def choose(model: CaptionModel, image: torch.Tensor, question: str, choices: tuple[str, ...]) -> int:
    """Return the index of the choice whose tokens have the highest mean log-likelihood after the question."""
    asked = _ids(model, question)
    best, chosen = -float("inf"), 0
    for number, choice in enumerate(choices):
        said = _ids(model, f" {choice}")
        ids = torch.tensor([[*asked, *said]])
        logits = model.logits(image[None], ids)[0, len(asked) :].float().log_softmax(-1)
        mean = logits.gather(1, ids[0, len(asked) :, None]).mean().item()
        if mean > best:
            best, chosen = mean, number
    return chosen


@dataclass(frozen=True, slots=True)
class Cloze:
    """A sentence about an image, cut before a name; each of `answers` is a correct completion."""

    image: str
    prompt: str
    answers: tuple[str, ...]


def read_clozes(path: Path) -> list[Cloze]:
    """Return the world-knowledge clozes in a file of JSON lines {"image", "prompt", "answers"}.

    Raises:
        InputError: The file is unreadable or has another format.
    """
    return [_cloze(entry) for entry in entries(read_json_lines(path), str(path))]


def _cloze(entry: Entry) -> Cloze:
    answers = entry.texts("answers")
    if not all(map(words_of, answers)):  # every completion would begin with it
        raise entry.wrong("answers", "texts with at least a word each")
    return Cloze(entry.text("image"), entry.text("prompt"), answers)


@torch.inference_mode()
def cloze_accuracy(model: CaptionModel, clozes: list[Cloze], images: Path, *, max_tokens: int = 12) -> float:
    """Return the share of sentences whose greedy completion starts with one of the answers."""
    right = 0
    for cloze in clozes:
        image = read_image(images / cloze.image, model)
        said = words_of(model.complete(image[None], _ids(model, cloze.prompt), max_tokens=max_tokens))
        right += any(said[: len(words)] == words for words in map(words_of, cloze.answers))
    return right / max(len(clozes), 1)


def _ids(model: CaptionModel, text: str) -> list[int]:
    ids: list[int] = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
