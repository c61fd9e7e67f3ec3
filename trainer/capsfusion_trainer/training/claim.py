"""The folder of a run: it belongs to one run, and remembers which steps that run skips."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from capsfusion_etl.errors import InputError
from capsfusion_etl.storage import write_json

from capsfusion_trainer.training.distributed import World

COMPLETE = "complete.json"
_RUN = "run.json"


def claim(out: Path, run: str, world: World) -> bool:
    """Claim `out` for a run; return False if the run is already complete.

    Raises:
        InputError: The folder holds another run.
    """
    state = "ours"
    if world.first:
        out.mkdir(parents=True, exist_ok=True)
        path = out / _RUN
        if not path.is_file():
            write_json(path, {"run": run, "skipped_steps": []})
        elif _read(out)["run"] != run:
            state = "another's"
        elif (out / COMPLETE).is_file():
            state = "done"
    state = world.broadcast(state)
    if state == "another's":
        raise InputError(f"{out} holds a run with other settings or data: choose another --out, or remove this folder")
    return bool(state == "ours")


def is_claimed(out: Path) -> bool:
    """Whether a run was begun in the folder."""
    return (out / _RUN).is_file()


def check_finished(out: Path, asked: Collection[int]) -> None:
    """Check that a finished run was made without the steps that are to be skipped.

    Raises:
        InputError: It has learned one of them.
    """
    done = json.loads((out / COMPLETE).read_text(encoding="utf-8"))
    if learned := sorted(set(asked) - set(done.get("skipped_steps", []))):
        raise InputError(f"--skip-step {learned[0]}: the run in {out} is finished and has learned it")


def steps_to_skip(
    out: Path, asked: Collection[int], kept: Collection[int], left: range, world: World
) -> frozenset[int]:
    """Return the steps whose batches are not learned, and keep them in `out`.

    Args:
        out: Folder of the run, with the steps that earlier commands skipped.
        asked: Steps that this command skips, counted from 1.
        kept: Steps that the checkpoint was made without.
        left: The steps that are left, counted from 0.
        world: The ranks.

    Raises:
        InputError: A step is done already, with its batch, or the run has no such step.
    """
    step = left.start
    if beyond := sorted(s for s in asked if s > left.stop):
        raise InputError(f"--skip-step {beyond[0]}: the run has {left.stop} steps")
    known = {*_read(out)["skipped_steps"], *kept} if world.first else set()
    known = set(world.broadcast(sorted(known)))
    if late := sorted(s for s in asked if s <= step and s not in known):
        raise InputError(
            f"--skip-step {late[0]}: the checkpoint of step {step} has learned it; remove the checkpoints from step "
            f"{late[0]} on to go back before it"
        )
    found = known | set(asked)
    if world.first:
        write_json(out / _RUN, {**_read(out), "skipped_steps": sorted(found)})
    return frozenset(found)


def _read(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / _RUN).read_text(encoding="utf-8"))
    return {"skipped_steps": [], **found}
