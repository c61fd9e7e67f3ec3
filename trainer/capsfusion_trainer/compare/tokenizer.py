"""A tokenizer of subwords for all strategies of a comparison, so that the words of none are longer than another's."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import remove, write_json
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from capsfusion_trainer.data.snapshot import Split

VOCABULARY = 4096
_TEXTS = "trained_on.json"
_END, _PAD = "<end>", "<pad>"


def shared_tokenizer(manifests: Iterable[Manifest], folder: Path, vocabulary: int = VOCABULARY) -> Path:
    """Train a byte-level BPE on the captions of all snapshots and write it to `folder`, if it is not there.

    Raises:
        InputError: The one that is there was trained on others.
    """
    manifests = list(manifests)
    texts = {"manifests": sorted(manifest.sha256() for manifest in manifests), "vocabulary": vocabulary}
    if folder.is_dir() and json.loads((folder / _TEXTS).read_text(encoding="utf-8")) != texts:
        raise InputError(
            f"{folder} was trained on the captions of other snapshots: choose another folder, or remove this one and "
            "the runs beside it"
        )
    if not folder.is_dir():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=[_END, _PAD], initial_alphabet=letters, show_progress=False
        )
        tokenizer.train_from_iterator(_captions(manifests), trainer)
        part = folder.with_name(f"{folder.name}.part")
        remove(part, within=folder.parent)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END, pad_token=_PAD).save_pretrained(part)
        write_json(part / _TEXTS, texts)
        part.rename(folder)
    return folder


def _captions(manifests: Iterable[Manifest]) -> Iterator[str]:
    for manifest in manifests:
        for sample in Split(manifest, "train"):
            yield sample.caption or ""
