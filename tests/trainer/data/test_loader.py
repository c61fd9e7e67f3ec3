"""Tests of the loader: batches, ranks, workers, missing files and image decoding."""

import io
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_trainer.data.batch import PADDING, Batch, Encoding
from capsfusion_trainer.data.image import decode
from capsfusion_trainer.data.loader import Loading, batches
from capsfusion_trainer.data.snapshot import Split
from PIL import Image
from transformers import ByT5Tokenizer

Snapshot = Callable[..., Path]
ENCODING = Encoding(16, 50, ByT5Tokenizer())


def loaded(lake: Path, steps: range, *, batch: int = 8, **options: object) -> list[Batch]:
    split = Split(open_snapshot(f"{lake}@first"), "train")
    return list(batches(split, ENCODING, steps, Loading(seed=0, batch=batch, lanes=256, **options)))  # type: ignore[arg-type]


def same(first: list[Batch], second: list[Batch]) -> bool:
    return all(
        a.pair_ids == b.pair_ids and torch.equal(a.images, b.images) and torch.equal(a.tokens, b.tokens)
        for a, b in zip(first, second, strict=True)
    )


def test_an_epoch_holds_every_pair_once_and_a_bad_picture_weighs_nothing(snapshot: Snapshot) -> None:
    epoch = loaded(snapshot(21, broken=(3, 4)), range(3))
    assert Counter(i for batch in epoch for i in batch.pair_ids) == Counter(f"{i:064x}" for i in range(21))
    assert {i for batch in epoch for i in batch.unreadable} == {f"{3:064x}", f"{4:064x}"}
    assert [len(batch) for batch in epoch] == [8, 8, 5]


@pytest.mark.parametrize(("workers", "start_method"), [(1, "spawn"), (2, "fork")])
def test_workers_change_nothing(snapshot: Snapshot, workers: int, start_method: str) -> None:
    lake = snapshot(21, files=3)
    alone = loaded(lake, range(4))
    assert same(alone, loaded(lake, range(4), workers=workers, start_method=start_method))
    assert same(alone[2:], loaded(lake, range(2, 4)))


def test_ranks_share_a_batch(snapshot: Snapshot) -> None:
    lake = snapshot(21)
    whole = loaded(lake, range(3))
    parts = [loaded(lake, range(3), rank=r, world=3) for r in range(3)]
    for step, batch in enumerate(whole):
        assert sorted(batch.pair_ids) == sorted(i for part in parts for i in part[step].pair_ids)


def test_a_rank_without_lanes_has_empty_batches(snapshot: Snapshot) -> None:
    empty = loaded(snapshot(9), range(2), batch=2, rank=5, world=6, workers=1, start_method="fork")
    assert [(len(b), b.images.shape, b.tokens.shape) for b in empty] == [(0, (0, 3, 16, 16), (0, 1))] * 2


def test_captions_end_with_the_end_token_unless_they_are_cut() -> None:
    short, long = ENCODING.tokens(["Oslo", "Oslo " * 30])
    assert short.tolist()[:6] == [*ENCODING.tokenizer("Oslo", add_special_tokens=False)["input_ids"], 1, PADDING]
    assert len(long) == 50
    assert long[-1] != 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_snapshot_that_is_vacuumed_under_the_run_names_the_file(snapshot: Snapshot, workers: int) -> None:
    lake = snapshot(21, files=3)
    split = Split(open_snapshot(f"{lake}@first"), "train")
    gone = split.files[1].path
    (lake / "training_pairs" / gone).unlink()
    loading = Loading(seed=0, batch=8, lanes=8, workers=workers, start_method="fork")
    with pytest.raises(InputError) as caught:
        list(batches(split, ENCODING, range(3), loading))
    assert str(caught.value) == f"snapshot first: {gone} is gone: was the table vacuumed?"


def test_a_split_goes_to_another_process(snapshot: Snapshot) -> None:
    split = Split(open_snapshot(f"{snapshot(9)}@first"), "train")
    before = list(split)
    assert list(pickle.loads(pickle.dumps(split))) == before


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def corners(data: bytes) -> list[tuple[int, ...]]:
    """Decode an image and return its corners in reading order, each channel as dark (0), medium (1) or bright (2)."""
    seen = decode(data, 32)
    assert seen is not None
    return [tuple(int(v) // 86 for v in seen[:, y, x]) for y in (3, 28) for x in (3, 28)]


def test_pictures_of_every_kind_are_upright_and_in_colour() -> None:
    image = Image.new("RGB", (400, 300), "white")
    image.paste("red", (0, 0, 200, 150))
    image.paste("blue", (200, 150, 400, 300))
    red, white, blue = (2, 0, 0), (2, 2, 2), (0, 0, 2)
    upright = [red, white, white, blue]
    assert corners(encoded(image, "JPEG")) == corners(encoded(image, "PNG")) == upright
    assert corners(encoded(image.convert("CMYK"), "JPEG")) == upright
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise to display
    assert corners(encoded(image, "JPEG", exif=exif)) == [white, red, blue, white]
    assert corners(encoded(image.convert("L"), "JPEG"))[1] == white


@pytest.mark.parametrize(
    "data", [None, b"", b"no picture", b"\xff\xd8\xff", encoded(Image.new("RGB", (64, 64)), "JPEG")[:200]]
)
def test_what_is_no_picture(data: bytes | None) -> None:
    assert decode(data, 16) is None
