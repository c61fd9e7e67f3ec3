"""A tokenizer of subwords for all strategies of a comparison, so that the words of none are longer than another's."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import remove
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from capsfusion_trainer.data.snapshot import Split

VOCABULARY = 4096
_END, _PAD = "<end>", "<pad>"


def shared_tokenizer(manifests: Iterable[Manifest], folder: Path) -> Path:
    """Train a byte-level BPE on the captions of all snapshots and write it to `folder`, if it is not there."""
    if not folder.is_dir():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=[_END, _PAD], initial_alphabet=letters, show_progress=False
        )
        tokenizer.train_from_iterator(_captions(manifests), trainer)
        part = folder.with_name(f"{folder.name}.part")
        remove(part, within=folder.parent)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END, pad_token=_PAD).save_pretrained(part)
        part.rename(folder)
    return folder


def _captions(manifests: Iterable[Manifest]) -> Iterator[str]:
    for manifest in manifests:
        for sample in Split(manifest, "train"):
            yield sample.caption or ""
