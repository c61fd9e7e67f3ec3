"""Report the progress of a run (metrics.jsonl, TensorBoard, progress.json, log) and detect a loss that must stop it.

MFU (model FLOPs utilization) is the model's own arithmetic as a share of the device's peak. With N weights, a token
takes 2 N operations forward, and backward 2 N where gradients only pass through or 4 N where the weights are trained.
Attention scores, embedding lookups, padding and recomputation do not count. Tokens are the patches in the vision tower,
the queries in the bridge, and what precedes the caption and the caption in the language model.
"""

import json
import math
import os
import statistics
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from capsfusion_etl.storage import write_json, write_whole
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.training.metrics_server import exporter

# Peak dense bfloat16 operations per second, from the vendor's data sheets.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
WINDOW = 64  # number of steps in a median
SAY_EVERY_S = 10.0
WRITE_EVERY_S = 1.0  # progress.json, which others read


class Monitor:
    """Records the steps of a run. All ranks track the loss; only the one that `speaks` writes and prints."""

    def __init__(self, out: Path, *, speaks: bool, total: int, snapshot: str) -> None:
        self._out, self._speaks, self._total, self._snapshot = out, speaks, total, snapshot
        self._paces: deque[float] = deque(maxlen=WINDOW)
        self._waits: deque[float] = deque(maxlen=1024)
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._said = self._written = 0.0
        self._progress: dict[str, Any] = {"checkpoint_step": None, "activity": "training"}
        self._begun = False
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._begun:
            self._say_progress()
        self._open.close()

    def start(self, step: int, losses: list[float]) -> None:
        """Open the logs to continue after `step`; entries of later steps are removed. `losses`: see `recent_losses`."""
        self._losses.extend(losses)
        self._begun = True
        if self._speaks:
            cut_back(self._out / "metrics.jsonl", step)
            self._log = self._open.enter_context((self._out / "metrics.jsonl").open("a", encoding="utf-8"))
            self._export = exporter(self._open)
            self._board = self._open.enter_context(SummaryWriter(str(self._out / "tensorboard"), purge_step=step))

    def saved(self, step: int) -> None:
        """Record that the checkpoint of `step` is complete, or that the run continues from it."""
        now = {"checkpoint_at": _now()} if self._begun else {}
        self._say_progress(checkpoint_step=step, **now)
        self._print_progress()

    @contextmanager
    def busy(self, activity: str) -> Iterator[None]:
        """Tell who watches the run that it does something that takes longer than a step, such as `exporting`."""
        self._say_progress(activity=activity)
        self._print_progress()
        yield
        self._say_progress(activity="training")
        self._print_progress()

    def strange(self, loss: float, factor: float) -> str | None:
        """Return why the run must stop at this loss, or None if the loss is normal."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        usual = statistics.median(self._losses) if len(self._losses) >= WINDOW // 2 else None
        if factor and usual is not None and loss > factor * usual:
            return f"the loss is {loss:.3g}, {loss / usual:.1f} times the median of the last {len(self._losses)}"
        return None

    def step(self, step: int, metrics: dict[str, Any], wait_s: float, step_s: float) -> None:
        """Record a step that took `step_s` seconds, of which `wait_s` were spent waiting for data."""
        self._losses.append(metrics["loss"])
        self._paces.append(step_s)
        self._waits.append(wait_s / step_s)
        if not self._speaks:
            return
        p50, p99 = (float(wait) for wait in np.percentile(self._waits, (50, 99)))
        pace = {"pairs_per_second": metrics["pairs"] / step_s, "tokens_per_second": metrics["tokens"] / step_s}
        metrics = {**metrics, **pace, "step_s": step_s, "data_wait_p50": p50, "data_wait_p99": p99}
        print(json.dumps({"step": step, **metrics}), file=self._log, flush=True)
        self._export({"step": step, "steps_total": self._total, **metrics})
        for name, value in metrics.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)
        eta = statistics.median(self._paces) * (self._total - step)
        self._progress |= {
            "step": step, "total": self._total, "loss": metrics["loss"], "eta_seconds": round(eta, 1),
            "pairs_per_second": metrics["pairs_per_second"], "snapshot": self._snapshot,
        }  # fmt: skip
        if time.monotonic() - self._written > WRITE_EVERY_S:
            self._say_progress()
        if time.monotonic() - self._said > SAY_EVERY_S or step == self._total:
            self._said = time.monotonic()
            print(
                f"step {step}/{self._total}  loss {metrics['loss']:.3f}  {metrics['pairs_per_second']:.1f} pairs/s"
                f"  data wait {p50:.1%}  eta {eta:.0f} s", flush=True,
            )  # fmt: skip
            self._print_progress()

    def skipped(self, step: int) -> None:
        """Record a step whose batch was not learned."""
        self._say_progress(step=step, total=self._total, snapshot=self._snapshot)
        self._print_progress()

    def _print_progress(self) -> None:
        if self._speaks and os.environ.get("CAPSFUSION_PROGRESS") == "stdout":  # the operator reads it from the log
            print(f"progress {json.dumps(self._progress)}", flush=True)

    def _say_progress(self, **news: object) -> None:
        if self._speaks:
            self._written = time.monotonic()
            self._progress |= {**news, "updated_at": _now()}
            write_json(self._out / "progress.json", self._progress)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def recent_losses(out: Path, step: int) -> list[float]:
    """Return the losses of the last steps up to `step` in metrics.jsonl: a resumed run compares with them, too."""
    log = out / "metrics.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return [json.loads(line)["loss"] for line in lines if _step_of(line) <= step][-WINDOW:]


def cut_back(log: Path, step: int) -> None:
    """Remove the lines after `step` from a log: resumed training writes them again."""
    if log.is_file():
        lines = log.read_text(encoding="utf-8").splitlines()
        write_whole(log, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))


def _step_of(line: str) -> float:
    """Return the step of a line. It is not the line's number: another machine may have made the first steps."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf  # truncated by a kill


def last_metrics(out: Path) -> dict[str, Any]:
    """Return the last line of metrics.jsonl; if another machine made the steps, complete.json with a NaN loss."""
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last: dict[str, Any] = json.loads(lines[-1]) if lines else json.loads((out / "complete.json").read_text())
    return {"loss": math.nan} | last


def summary(metrics: dict[str, Any]) -> str:
    """Return a one-line summary of `last_metrics`."""
    loss = metrics["loss"]
    return f"{metrics['step']} steps, {'made on another machine' if math.isnan(loss) else f'loss {loss:.3f}'}"


def operations(model: CaptionModel, pairs: int, text: int) -> float:
    """Return the operations of a step with `pairs` images and `text` caption tokens (see the module)."""
    config = model.config
    return (
        (6 if not config.freeze_vision else 2) * _weights(model.vision) * model.patches * pairs
        + 6 * _weights(model.bridge) * config.queries * pairs
        + (6 if not config.freeze_llm else 4) * _multiplied(model.llm) * (model.prefix_length * pairs + text)
    )


def peak(device: torch.device) -> float | None:
    """Return the device's peak operations per second, or None if it is unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((value for key, value in PEAKS.items() if key in name), None)


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _multiplied(llm: Any) -> int:
    """Return the number of weights without the token embeddings, unless these are tied to the output layer."""
    table, head = llm.get_input_embeddings(), llm.get_output_embeddings()
    return _weights(llm) - (table.weight.numel() if head is not None and head.weight is not table.weight else 0)
