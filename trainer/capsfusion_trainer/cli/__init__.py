"""Commands of the trainer. None needs Spark: a snapshot is read through its manifest."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from capsfusion_etl.cli.options import ConfigOption, SetOption
from capsfusion_etl.errors import InputError

from capsfusion_trainer.cli.compare import compare
from capsfusion_trainer.cli.evaluate import beside, check_writable, describe, evaluate, is_first


def register(app: typer.Typer) -> None:
    """Register the commands of this package."""
    app.command()(train)
    app.command()(pin)
    app.command()(evaluate)
    app.command()(describe)
    app.command()(compare)
    _add_refinement(app)


def train(
    snapshot: Annotated[
        str | None, typer.Option("--snapshot", help="LAKE@NAME, LAKE@latest, LAKE@VERSION, or the path of a manifest.")
    ] = None,
    recipe: Annotated[str | None, typer.Option("--recipe", help="Named recipe, such as micro_cpu.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run; by default checkpoints/NAME in the lake.")
    ] = None,
    checkpoints: Annotated[
        str | None, typer.Option("--checkpoints", help="Folder or fsspec URL; by default checkpoints in --out.")
    ] = None,
    resume_from: Annotated[
        str | None,
        typer.Option(
            "--resume-from", help="Other folder with checkpoints of this run, used if --checkpoints has none."
        ),
    ] = None,
    manifest_sha256: Annotated[
        str | None, typer.Option("--manifest-sha256", help="Refuse the snapshot unless its manifest has this sha256.")
    ] = None,
    skip_step: Annotated[
        list[int] | None, typer.Option("--skip-step", min=1, help="Do not learn the batch of this step; repeatable.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the model's size and the memory that each rank needs.")
    ] = False,
    ranks: Annotated[int, typer.Option("--ranks", min=1, help="With --dry-run: number of ranks.")] = 8,
    gpu: Annotated[str, typer.Option("--gpu", help="With --dry-run: H200, H100, A100, L40S or L4.")] = "H100",
    config: ConfigOption = None,
    sets: SetOption = None,
) -> None:
    """Train the multimodal model on a snapshot, alone or under torchrun. Run the same command again to resume."""
    from capsfusion_etl import settings as s

    from capsfusion_trainer.config import of_settings

    settings = s.load(config, sets or ())
    if recipe:
        s.put(settings, "trainer", "recipe", recipe)
    chosen = of_settings(settings)
    if dry_run:
        from capsfusion_trainer.training.estimate import estimate

        print(estimate(chosen, ranks=ranks).table(gpu))
        return
    if snapshot is None:
        raise InputError("say what to train on: --snapshot LAKE@NAME")
    from capsfusion_etl.snapshots.address import open_snapshot

    from capsfusion_trainer.train import train as loop
    from capsfusion_trainer.training.monitor import summary

    # The ranks verify the files together; before, one looks whether they are there.
    manifest = open_snapshot(snapshot, failed_gate=chosen.failed_gate, hashes=False if is_first() else None)
    if manifest_sha256 not in (None, manifest.sha256()):
        raise InputError(
            f"{snapshot} is no longer the snapshot that was pinned: its manifest has another sha256; pin it again"
        )
    target = out or beside(snapshot, manifest.name)
    metrics = loop(chosen, manifest, target, checkpoints, resume_from, hashes=True, skip=skip_step or ())
    if is_first():
        print(f"{target}: {summary(metrics)}")


def pin(
    snapshot: Annotated[str, typer.Option("--snapshot", help="LAKE@NAME, LAKE@latest or LAKE@VERSION.")],
    message: Annotated[
        Path | None, typer.Option("--message", help="Also write the JSON there; an error as well, with status 0.")
    ] = None,
    hold: Annotated[
        str | None, typer.Option("--hold", help="Keep the files from VACUUM in this holder's name.")
    ] = None,
    days: Annotated[
        int | None, typer.Option("--days", min=1, help="With --hold: end it after so many days, unless held again.")
    ] = None,
    release: Annotated[str | None, typer.Option("--release", help="Release the hold of this holder.")] = None,
) -> None:
    """Check every file of a snapshot and print its ids, sizes and gate result as JSON; or hold or release its files."""
    import json

    from capsfusion_trainer.data.pin import keep, let_go, told

    if hold is not None and release is not None:
        raise InputError("--hold and --release exclude each other: give one in each command")
    if days is not None and hold is None:
        raise InputError("--days is for --hold: name the holder, too")
    if hold is not None or release is not None:
        until = datetime.now(UTC) + timedelta(days=days) if days is not None else None
        who = keep(snapshot, hold, until=until) if hold is not None else let_go(snapshot, str(release))
        print(f"{snapshot} is held by {', '.join(who) or 'nobody'}")
        return
    check_writable("--message", message)
    found = told(snapshot)
    if message is not None:
        message.write_text(json.dumps(found), encoding="utf-8")
    elif "error" in found:
        raise InputError(found["error"])
    print(json.dumps(found, indent=1))


def _add_refinement(app: typer.Typer) -> None:
    @app.command()
    def refine(
        triplets: Annotated[
            str, typer.Option("--triplets", help="Parquet or Delta with raw, synthetic and fused captions.")
        ],
        out: Annotated[Path, typer.Option("--out", help="Output folder of the adapter or model.")],
        base: Annotated[
            str | None, typer.Option("--base", help="Base model: hub name or folder; by default the embedded one.")
        ] = None,
        recipe: Annotated[str, typer.Option("--recipe", help="smollm2_135m_cpu or llama2_13b.")] = "smollm2_135m_cpu",
        sets: SetOption = None,
    ) -> None:
        """Fine-tune a fuser on triplets."""
        from capsfusion_etl.engines.generation.weights import smollm2

        from capsfusion_trainer.refine.config import of_assignments

        chosen = of_assignments(recipe, sets or [])
        from capsfusion_trainer.refine.run import refine as tune

        result = tune(triplets, base or str(smollm2()), chosen, out)
        left = ", ".join(f"{name} {count}" for name, count in result["left_out"].items()) or "none"
        print(f"{result['triplets']} triplets in training, {result['held_out']} held out, left out: {left}")
        print(f"{out / 'model'}: {result['steps']} steps, best {result['chosen_by']} {result['best']:.3f}")

    @app.command()
    def score(
        parquet: Annotated[
            str | None, typer.Option("--parquet", help="File or folder with raw, synthetic and fused captions.")
        ] = None,
        table: Annotated[str | None, typer.Option("--table", help="Delta table, such as LAKE/fused_captions.")] = None,
        fused: Annotated[
            str | None, typer.Option("--fused", help="Column to score; by default the fused captions.")
        ] = None,
        reference: Annotated[str | None, typer.Option("--reference", help="Column with reference captions.")] = None,
        json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures there.")] = None,
    ) -> None:
        """Show how often each check rejects captions, how many facts they keep, and how near a reference they are."""
        import json
        from dataclasses import asdict

        from capsfusion_trainer.refine.score import as_table
        from capsfusion_trainer.refine.score import score as card
        from capsfusion_trainer.refine.triplets import read_triplets

        path = parquet or table
        if path is None or (parquet and table):
            raise InputError("say what to score: give either --parquet PATH or --table PATH")
        check_writable("--json", json_file)
        rows = read_triplets(path, fused=fused, accepted_only=False)
        others = read_triplets(path, fused=reference, accepted_only=False) if reference else []
        found = card(rows, references=[t.fused_caption for t in others] if reference else None)
        print(as_table(found))
        if json_file is not None:
            json_file.write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
