"""Score one model on a suite, picture by picture."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from capsfusion_trainer.compare.suite import Suite
from capsfusion_trainer.data.feature_cache import FeatureCache
from capsfusion_trainer.evaluation.captions import BATCH, read_image
from capsfusion_trainer.evaluation.clozes import Cloze
from capsfusion_trainer.evaluation.entities import entities
from capsfusion_trainer.evaluation.likelihood import Asked, mean_log_likelihoods, text_loss
from capsfusion_trainer.evaluation.metrics import cider_d_each
from capsfusion_trainer.evaluation.references import References
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.model.decoding import Decoding
from capsfusion_trainer.training.distributed import World

CLOZE, CONTROL = "cloze choice accuracy", "cloze choice accuracy with another picture"
SEEN = "cloze choice accuracy from the picture"  # the difference of the two: what the prompt alone does not tell
CAPTIONS = "captions"  # benchmark of what is told by the captions alone
TEXT_LOSS = "loss per token"  # in nats


class Score(NamedTuple):
    """A score of one unit: a picture, or a line of a text. A mean over units is weighted by `weight`."""

    benchmark: str
    metric: str
    unit: str
    value: float
    weight: float


def score(model: CaptionModel, suite: Suite, world: World) -> tuple[list[Score], dict[str, str]]:
    """Return the scores of a model, and its captions by picture. Under torchrun each rank captions and answers a share.

    Raises:
        InputError: An image cannot be read.
    """
    look = _Look(suite.images, model)
    files = suite.pictures()
    decoding = Decoding.free(model, suite.beams, suite.max_new_tokens)
    made = world.spread(files, lambda share: _captions(model, share, look, decoding))
    captions = dict(zip(files, made, strict=True))
    found: list[Score] = []
    for name, references in suite.references.items():
        found += _of_captions(name, references, captions)
    found += _distinct(captions)
    for name, clozes in suite.clozes.items():
        asked = _with_other_pictures([cloze for cloze in clozes if cloze.distractors])
        answers = world.spread(asked, lambda share: _answers(model, share, look))
        for (cloze, _), (right, control) in zip(asked, answers, strict=True):
            figures = {CLOZE: right, CONTROL: control, SEEN: right - control}
            found += [Score(name, metric, cloze.image, value, 1.0) for metric, value in figures.items()]
    for name, texts in suite.texts.items():
        losses = world.spread(texts, lambda share: (text_loss(model, text) for text in share))
        found += [Score(name, TEXT_LOSS, f"line {n}", *loss) for n, loss in enumerate(losses, 1) if loss[1]]
    return found, captions


class _Look:
    """Reads pictures: as features if the model has a cache of them, else as pixels."""

    def __init__(self, folder: Path, model: CaptionModel) -> None:
        self._folder, self._model = folder, model
        cached = model.config.feature_cache
        self._cache = FeatureCache.of(cached, model.vision_fingerprint()) if cached else None

    def __call__(self, files: Sequence[str]) -> Tensor:
        """Return features (B, P, vision_width) or pixels (B, 3, S, S)."""
        paths = [self._folder / file for file in files]
        if self._cache is None:
            return torch.stack([read_image(path, self._model) for path in paths])
        ids = [self._cache.id_of(path.read_bytes()) for path in paths]
        new = {image_id: path for image_id, path in zip(ids, paths, strict=True) if image_id not in self._cache}
        if new:
            pixels = torch.stack([read_image(path, self._model) for path in new.values()])
            with torch.inference_mode(), self._model.precision():
                features = self._model.encode_images(pixels.to(self._model.device))
            self._cache.write(list(new), features)
        return torch.stack(self._cache.read(ids))


def _captions(model: CaptionModel, files: Sequence[str], look: _Look, decoding: Decoding) -> Iterator[str]:
    for start in range(0, len(files), BATCH):
        yield from model.generate(look(files[start : start + BATCH]), decoding)


def _of_captions(name: str, references: References, captions: dict[str, str]) -> Iterator[Score]:
    """Yield the scores of captions against one set of references."""
    files = [references.files[i] for i in references.captions]
    groups, said = list(references.captions.values()), [captions[file] for file in files]
    judged = [entities(caption, group) for caption, group in zip(said, groups, strict=True)]
    named = any(found.wanted for found in judged)  # if no reference has a name, no name of a caption can be right
    for file, found, cider in zip(files, judged, cider_d_each(said, groups), strict=True):
        yield Score(name, "CIDEr-D", file, cider, 1.0)
        if found.wanted:
            yield Score(name, "entity recall", file, found.kept / found.wanted, float(found.wanted))
        if named and (stated := found.kept + found.invented):
            yield Score(name, "entity precision", file, found.kept / stated, float(stated))


def _distinct(captions: dict[str, str]) -> Iterator[Score]:
    """Yield 1/n for each picture whose caption n pictures have: the mean is the share of distinct captions."""
    often = Counter(captions.values())
    for file, caption in captions.items():
        yield Score(CAPTIONS, "distinct", file, 1 / often[caption], 1.0)


def _with_other_pictures(clozes: Sequence[Cloze]) -> list[tuple[Cloze, str]]:
    """Return each cloze with the picture of another one that has other answers; without any such, with its own."""
    found = []
    for number, cloze in enumerate(clozes):
        others = (clozes[(number + len(clozes) // 2 + n) % len(clozes)] for n in range(len(clozes)))
        other = next((o.image for o in others if o.image != cloze.image and not {*o.answers} & {*cloze.answers}), None)
        found.append((cloze, other or cloze.image))
    return found


def _answers(model: CaptionModel, asked: Sequence[tuple[Cloze, str]], look: _Look) -> Iterator[tuple[float, float]]:
    """Yield whether an answer is more likely than every distractor, with the right picture and with another one."""
    for start in range(0, len(asked), BATCH):
        some = asked[start : start + BATCH]
        questions = [Asked(cloze.prompt, (*cloze.answers, *cloze.distractors)) for cloze, _ in some]
        for_each = [
            mean_log_likelihoods(model, look(files), questions)
            for files in ([cloze.image for cloze, _ in some], [other for _, other in some])
        ]
        for (cloze, _), right, control in zip(some, *for_each, strict=True):
            yield float(cloze.is_answered(right)), float(cloze.is_answered(control))
