"""`capsfusion train` and `capsfusion evaluate`: no Spark, a snapshot's manifest is enough."""

from pathlib import Path
from typing import Annotated

import typer
from capsfusion_etl.command import ConfigOption, SetOption

SnapshotOption = Annotated[str, typer.Option("--snapshot", help="LAKE@NAME, or the path of a manifest.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Folder of the model; by default beside the snapshot.")]


def register(app: typer.Typer) -> None:
    """Add this package's commands."""

    @app.command()
    def train(
        snapshot: SnapshotOption,
        recipe: Annotated[str | None, typer.Option("--recipe", help="Named recipe, such as micro_cpu.")] = None,
        out: OutOption = None,
        config: ConfigOption = None,
        sets: SetOption = None,
    ) -> None:
        """Train the multimodal model on a snapshot."""
        from capsfusion_etl import settings as s

        from capsfusion_trainer.config import of_settings

        settings = s.load(config, sets or ())
        if recipe:
            s.put(settings, "trainer", "recipe", recipe)
        chosen = of_settings(settings)
        from capsfusion_trainer.snapshot import open_snapshot
        from capsfusion_trainer.train import train as loop

        manifest = open_snapshot(snapshot)
        target = out or _beside(snapshot, manifest.name)
        metrics = loop(chosen, manifest, target)
        print(f"{target}: {metrics['step']} steps, loss {metrics['loss']:.3f}")

    @app.command()
    def evaluate(snapshot: SnapshotOption, out: OutOption = None) -> None:
        """Score a trained model on the held-out pictures."""
        from capsfusion_trainer.evaluate import evaluate as score
        from capsfusion_trainer.snapshot import open_snapshot
        from capsfusion_trainer.steps import said

        manifest = open_snapshot(snapshot)
        target = out or _beside(snapshot, manifest.name)
        result = score(manifest, target)
        for sample in result["captions"]:
            print(f"{sample['pair_id'][:12]}  {sample['caption']}")
        print(f"{target}: {said(result)}")


def _beside(snapshot: str, name: str) -> Path:
    from capsfusion_etl.memory import folder_of

    lake, at, _ = snapshot.rpartition("@")
    return (folder_of(lake) if at else Path(snapshot).absolute().parent.parent) / "checkpoints" / name
