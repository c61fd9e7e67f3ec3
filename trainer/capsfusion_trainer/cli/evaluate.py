"""`capsfusion evaluate`, `describe` and `compare`: score, use and compare trained models."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from capsfusion_etl.errors import InputError

Scores = dict[str, dict[str, float]]
FileOption = Path | None
LengthOption = Annotated[
    int | None,
    typer.Option("--max-new-tokens", min=1, help="Longest caption; by default 20 subwords, or as long as in training."),
]


def evaluate(
    snapshot: Annotated[
        str | None, typer.Option("--snapshot", help="Score its held-out images: LAKE@NAME, or the path of a manifest.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="JSON file for the scores; with --snapshot, the folder of the run.")
    ] = None,
    references: Annotated[FileOption, typer.Option("--references", help="COCO captions file to score against.")] = None,
    predictions: Annotated[
        FileOption, typer.Option("--predictions", help="COCO results file to score; with --checkpoint, it is written.")
    ] = None,
    questions: Annotated[
        FileOption, typer.Option("--questions", help="Multiple-choice questions in SEED-Bench's format.")
    ] = None,
    clozes: Annotated[
        FileOption, typer.Option("--clozes", help="Clozes in JSON lines: image, prompt, answers.")
    ] = None,
    checkpoint: Annotated[
        FileOption,
        typer.Option("--checkpoint", help="Model to score: folder `model` of a finished run."),
    ] = None,
    images: Annotated[FileOption, typer.Option("--images", help="Folder of the images.")] = None,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Beam width of captioning.")] = 5,
    max_new_tokens: LengthOption = None,
    lake: Annotated[
        str | None, typer.Option("--lake", help="Append the scores to the table evaluations of this lake.")
    ] = None,
) -> None:
    """Score a trained model, or captions of any origin."""
    benchmark = _only(
        {"--snapshot": snapshot, "--references": references, "--questions or --clozes": questions or clozes}
    )
    if snapshot is not None:
        _held_out(snapshot, out)
        return
    check_writable("--out", out)
    if checkpoint is not None:
        check_writable("--predictions", predictions)
    if lake is not None:
        from capsfusion_trainer.evaluation.record import check_lake

        check_lake(lake)
    if predictions is None and (checkpoint is None or images is None):
        raise InputError("say who answers: --predictions FILE, or --checkpoint MODEL and --images FOLDER")
    if references is not None:
        scores = _coco(references, predictions, checkpoint, images, beams, max_new_tokens)
    elif checkpoint is None or images is None:
        raise InputError("--questions and --clozes need --checkpoint and --images")
    else:
        scores = _answers(questions, clozes, checkpoint, images)
    if not is_first():
        return
    for domain, figures in scores.items():
        for metric, value in figures.items():
            print(f"{domain:20s} {metric:22s} {value:10.4f}")
    if out is not None:
        out.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    if lake is not None:
        from capsfusion_trainer.evaluation.record import record

        print(f"{record(lake, Path(benchmark).name, checkpoint, scores)} rows appended to {lake}/evaluations")


def _only(asked: Mapping[str, Path | str | None]) -> Path | str:
    """Return the value of the one option that says what to score."""
    given = {option: value for option, value in asked.items() if value is not None}
    if not given:
        raise InputError(f"say what to score: {', '.join(asked)}")
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} ask for different scores: give one in each command")
    return next(iter(given.values()))


def describe(
    pictures: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: Annotated[Path, typer.Option("--model", help="Folder `model` of a finished run.")],
    beams: Annotated[int, typer.Option("--beams", min=1)] = 5,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="By default, as many as in training.")
    ] = None,
) -> None:
    """Caption images with a trained model."""
    from capsfusion_trainer.evaluation.captions import described
    from capsfusion_trainer.model.decoding import Decoding
    from capsfusion_trainer.training.export import load

    faults, loaded = [], load(model)
    for path, said in described(loaded, pictures, Decoding.free(loaded, beams, max_new_tokens)):
        if isinstance(said, InputError):
            faults.append(str(said))
        else:
            print(f"{path}: {said}")
    if faults:
        raise InputError(f"{len(faults)} of {len(pictures)} images have no caption: {'; '.join(faults)}")


def _held_out(snapshot: str, out: Path | None) -> None:
    from capsfusion_etl.snapshots.address import open_snapshot

    from capsfusion_trainer.evaluation.held_out import evaluate as score
    from capsfusion_trainer.steps import said

    manifest = open_snapshot(snapshot, failed_gate=True)
    target = out or beside(snapshot, manifest.name)
    result = score(manifest, target)
    if not is_first():
        return
    for sample in result["captions"]:
        print(f"{sample['pair_id'][:12]}  {sample['caption']}")
    print(f"{target}: {said(result)}")


def is_first() -> bool:
    """Return whether this process is rank 0 of torchrun, or alone: it prints and writes. Needs no process group."""
    return os.environ.get("RANK", "0") == "0"


def check_writable(option: str, path: Path | None) -> None:
    """Refuse a file that cannot be written, before the work and not after it.

    Raises:
        InputError: its folder is missing or not writable, or it is a folder.
    """
    if path is None:
        return
    if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise InputError(f"{option}: {path} cannot be written: is there a folder {path.absolute().parent}?")


def _coco(
    references: Path, predictions: Path | None, checkpoint: Path | None, images: Path | None, beams: int,
    longest: int | None,
) -> Scores:  # fmt: skip
    from capsfusion_trainer.evaluation.coco import read_predictions, scores
    from capsfusion_trainer.evaluation.references import read_references

    wanted = read_references(references)
    if predictions is not None and checkpoint is None:
        return scores(wanted, read_predictions(predictions))
    if checkpoint is None or images is None:
        raise InputError("--checkpoint needs images to caption: --images FOLDER")
    from capsfusion_trainer.evaluation.captions import benchmark_captions
    from capsfusion_trainer.model.decoding import Decoding
    from capsfusion_trainer.training.distributed import init_distributed
    from capsfusion_trainer.training.export import load

    ids = list(wanted.captions)
    _check_files(references, ids, wanted.files)
    with init_distributed() as world:
        model = load(checkpoint, world.device)
        paths = [images / wanted.files[i] for i in ids]
        made = benchmark_captions(model, paths, Decoding.benchmark(model, beams, longest), world)
    found: list[dict[str, Any]] = [{"image_id": i, "caption": c} for i, c in zip(ids, made, strict=True)]
    if predictions is not None and world.first:
        predictions.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return scores(wanted, {row["image_id"]: row["caption"] for row in found})


def _check_files(references: Path, ids: Iterable[int | str], files: dict[int | str, str]) -> None:
    nameless = next((i for i in ids if i not in files), None)
    if nameless is not None:
        raise InputError(f"{references}: the image {nameless} has no file_name")


def _answers(questions: Path | None, clozes: Path | None, checkpoint: Path, images: Path) -> Scores:
    from capsfusion_trainer.evaluation.choices import accuracy, read_questions
    from capsfusion_trainer.evaluation.clozes import cloze_scores, read_clozes
    from capsfusion_trainer.training.distributed import init_distributed
    from capsfusion_trainer.training.export import load

    asked = read_questions(questions) if questions is not None else []
    sentences = read_clozes(clozes) if clozes is not None else []
    found: Scores = {}
    with init_distributed() as world:
        model = load(checkpoint, world.device)
        if asked:
            found = {kind: {"accuracy": value} for kind, value in accuracy(model, asked, images, world).items()}
        if sentences:
            found.setdefault("all", {}).update(cloze_scores(model, sentences, images, world))
    return found


def beside(snapshot: str, name: str) -> Path:
    """Return the default folder of a run on a snapshot: `checkpoints/NAME` in the lake."""
    from capsfusion_etl.lake.location import local_folder_of

    lake, at, _ = snapshot.rpartition("@")
    return (local_folder_of(lake) if at else Path(snapshot).absolute().parent.parent) / "checkpoints" / name
