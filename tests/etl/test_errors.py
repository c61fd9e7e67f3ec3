"""Test how exceptions from Spark, Java and the operating system become errors with advice."""

import errno
import re
import subprocess
import sys

import pytest
from capsfusion_etl.errors import InputError, MissingDependencyError, RetryError, explain, first_line
from capsfusion_etl.spark.session import check_java


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), RetryError, 3),
        (RuntimeError("java.io.IOException: No space left on device\n\tat org.apache"), RetryError, 3),
        (RuntimeError("x\ncapsfusion_etl.errors.InputError: fix it\n"), InputError, 2),
        (PermissionError(errno.EACCES, "Permission denied"), InputError, 2),
    ],
)
def test_failures_from_below_become_ours(error: BaseException, kind: type, status: int) -> None:
    found = explain(error)
    assert isinstance(found, kind)
    assert found.exit_code == status


@pytest.mark.parametrize(
    ("told", "kind", "advice"),
    [
        (
            "pyspark.errors.exceptions.base.PySparkRuntimeError: [PYTHON_VERSION_MISMATCH] Python in worker has "
            "different version: 3.12 than that in driver: 3.11, PySpark cannot run with different minor versions.",
            InputError,
            "workers run Python 3.12, the driver runs 3.11: set spark.pyspark.python",
        ),
        (
            "Traceback\nModuleNotFoundError: No module named 'rensa'\n",
            MissingDependencyError,
            r"no module rensa: .*\[workers\]",
        ),
        ("(TID 8) (10.0.0.4 executor 4): java.lang.OutOfMemoryError: Java heap space", RetryError, "--executor-memory"),
        ("[_LEGACY] Not enough memory to build and broadcast the table to all", RetryError, "--driver-memory"),
        ("The provided token has expired. (Service: S3, Status Code: 400", RetryError, "renew them"),
        ("org.apache.hadoop.fs.s3a.auth.NoAuthWithAWSException: No AWS", InputError, "usual chain"),
    ],
)
def test_what_is_wrong_with_a_cluster_comes_with_advice(told: str, kind: type, advice: str) -> None:
    found = explain(RuntimeError(told))
    assert isinstance(found, kind)
    assert re.search(advice, str(found))


def test_a_bug_stays_a_bug() -> None:
    assert explain(ZeroDivisionError("division by zero")) is None


def test_first_line_is_short() -> None:
    assert first_line("\n\n  a\nb") == "a"
    assert len(first_line("x" * 1000)) == 300


def test_no_java_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(Exception, match="apt-get install openjdk-17-jre-headless") as caught:
        check_java()
    assert "brew install" in str(caught.value)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, capsfusion_etl.cli.main; "
        "print([m for m in ('torch', 'pyspark', 'transformers', 'great_expectations', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
