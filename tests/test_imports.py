"""Test in fresh interpreters what imports load: no Spark for the trainer, no heavy package for the command line."""

import subprocess
import sys

import pytest


def loaded(module: str) -> set[str]:
    """Return the top-level packages that importing `module` loads."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "capsfusion_etl.lake.location", "capsfusion_etl.snapshots.manifest", "capsfusion_etl.snapshots.holds",
        "capsfusion_etl.tables", "capsfusion_etl.judge", "capsfusion_trainer.cli", "capsfusion_trainer.data.pin",
        "capsfusion_trainer.train", "capsfusion_trainer.refine.triplets",
    ],
)  # fmt: skip
def test_what_the_trainer_imports_loads_no_spark(module: str) -> None:
    assert "pyspark" not in loaded(module)


def test_the_command_line_loads_nothing_heavy() -> None:
    assert not {"pyspark", "torch", "transformers", "great_expectations", "pandas", "numpy"} & loaded(
        "capsfusion_etl.cli.main"
    )
