"""The command lines of a run's containers."""

import json

from capsfusion_k8s.run import Run

PORT = 23456


def snapshot_address(run: Run) -> str:
    """Return the requested snapshot in the syntax of `capsfusion`: LAKE@NAME, LAKE@latest or LAKE@VERSION."""
    dataset = run.spec["dataset"]
    which = dataset.get("snapshot") or ("latest" if dataset.get("latestPassing") else dataset["version"])
    return f"{dataset['uri'].rstrip('/')}@{which}"


def pinned_address(run: Run) -> str:
    """Return the snapshot that was pinned, as LAKE@NAME or LAKE@VERSION, never LAKE@latest."""
    pin = run.status["snapshot"]
    return f"{run.spec['dataset']['uri'].rstrip('/')}@{pin.get('name', pin['version'])}"


def training_command(run: Run, attempt: int, leader: str) -> list[str]:
    """Return the command of an attempt: torchrun with `capsfusion train`, or the run's custom command.

    Args:
        leader: Host name of the pod at which the others meet.
    """
    trainer = run.spec["trainer"]
    if trainer.get("command"):
        return [*trainer["command"], *trainer.get("args", [])]
    elastic, wait = trainer.get("elastic"), run.rendezvous_timeout_s
    count = f"{elastic['min']}:{elastic['max']}" if elastic else str(run.most_nodes)
    torchrun = [
        "python", "-m", "capsfusion_trainer.launch",
        f"--nnodes={count}", f"--nproc-per-node={trainer.get('procPerNode', 1)}",
        "--rdzv-backend=c10d", f"--rdzv-id={run.child(attempt)}", f"--rdzv-endpoint={leader}:{PORT}",
        f"--rdzv-conf=join_timeout={wait},read_timeout={wait}",
    ]  # fmt: skip
    return [*torchrun, "train", *_training(run), *trainer.get("args", [])]


def _training(run: Run) -> list[str]:
    trainer, checkpoint, pin = run.spec["trainer"], run.spec["checkpoint"], run.status["snapshot"]
    words = [
        "--snapshot", pinned_address(run), "--manifest-sha256", pin["manifestSha256"],
        "--recipe", trainer["recipe"], "--out", "/work/run", "--checkpoints", run.checkpoints,
    ]  # fmt: skip
    if "resumeFrom" in checkpoint:
        words += ["--resume-from", checkpoint["resumeFrom"]]
    words += [f"--set=trainer.{key}={json.dumps(value)}" for key, value in trainer.get("set", {}).items()]
    if "intervalSteps" in checkpoint:
        words.append(f"--set=trainer.checkpoint_every={checkpoint['intervalSteps']}")
    if "keep" in checkpoint:
        words.append(f"--set=trainer.keep={checkpoint['keep']}")
    if (pin.get("gate") or {}).get("result") != "passed":
        words.append("--set=trainer.failed_gate=true")  # the run's qualityGate admitted it
    return words
