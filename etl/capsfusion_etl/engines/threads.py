"""How many cores a model may use inside a Spark task."""

import torch


def use_task_cores() -> None:
    """As many threads as the task has cores (spark.task.cpus): tasks run side by side, and must not fight."""
    from pyspark import TaskContext

    task = TaskContext.get()
    if task is not None:
        torch.set_num_threads(max(1, int(task.cpus())))
