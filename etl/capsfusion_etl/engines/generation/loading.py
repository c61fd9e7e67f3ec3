"""Load models with the transformers library: where they are, on which device and in which type they run."""

from pathlib import Path
from typing import Any

import torch

from capsfusion_etl.engines.config import EngineConfig
from capsfusion_etl.engines.generation.int8 import supported
from capsfusion_etl.errors import InputError


def load(kind: Any, **arguments: Any) -> Any:
    """Call `kind.from_pretrained` with these arguments and return what it loads.

    Raises:
        InputError: the model does not exist, or `kind` cannot load it.
    """
    where = arguments.pop("pretrained_model_name_or_path")
    try:
        return kind.from_pretrained(where, **arguments)
    except (OSError, ValueError, KeyError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"cannot load the model {where}: {reason[:200]}") from None


def source(model: str, revision: str | None) -> dict[str, Any]:
    """Return the arguments by which from_pretrained finds `model`; for a GGUF file, its folder and its name."""
    if model.endswith(".gguf"):
        return {"pretrained_model_name_or_path": str(Path(model).parent), "gguf_file": Path(model).name}
    return {"pretrained_model_name_or_path": model, "revision": revision}


def device() -> str:
    """Return cuda if this process sees a GPU, else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def dtype(config: EngineConfig) -> torch.dtype:
    """Return the type of the weights to load: for auto, bfloat16 on a GPU and float32 on a CPU.

    CPUs without bfloat16 instructions are many times slower with it. For int8 the type is float32, because `quantise`
    converts the loaded model.

    Raises:
        InputError: `dtype` is not a floating-point type of torch, or int8 is not supported here.
    """
    if config.dtype == "int8":
        if device() != "cpu" or not supported():
            raise InputError("dtype: int8 needs a CPU and a build of torch with FBGEMM kernels for it: use auto")
        return torch.float32
    if config.dtype == "auto":
        return torch.bfloat16 if device() == "cuda" else torch.float32
    chosen = getattr(torch, config.dtype, None)
    if not isinstance(chosen, torch.dtype) or not chosen.is_floating_point:
        raise InputError(
            f"dtype: {config.dtype!r} is none of torch's floating-point types; "
            "use auto, float32, bfloat16, float16 or int8"
        )
    return chosen


def quiet() -> None:
    """Turn off the progress bars of transformers, which would fill an executor's log."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def use_task_cores() -> None:
    """Let torch use as many threads as the task has cores (spark.task.cpus), because tasks share the machine."""
    from pyspark import TaskContext

    task = TaskContext.get()
    if task is not None:
        torch.set_num_threads(max(1, int(task.cpus())))
