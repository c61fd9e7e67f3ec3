"""Exceptions that this project raises on purpose, grouped by what the caller does next; each class has an exit status.

0    success
1    the quality gate refused                       -> read the report, fix the data or the threshold
2    invalid input, or something is missing         -> fix what the message names, run again
3    disk full, server unreachable, budget used up  -> remove the shortage, run the same command again
70   a bug in this project                          -> the message names a file with the stack trace
130  interrupted (Ctrl-C); 143: terminated          -> run the same command again to resume
"""

import errno
import re

# Spark's error classes for a damaged data file; group 1 is the file.
_UNREADABLE = re.compile(
    r"(?:FAILED_READ_FILE|CANNOT_READ_FILE)[^\n]*?((?:file|s3a?|abfss?|gs|hdfs|dbfs):/[^\s,]+?)[.,]?(?:\s|$)"
)
# How the operating system, Java, safetensors and torch.save report a full disk; torch.save gives no reason.
_DISK_FULL = ("No space left on device", "Disk quota exceeded", "iostream error", "inline_container.cc")


class CapsfusionError(Exception):
    """Base class. `str(error)` is one line for people: what is wrong and what to do."""

    exit_code = 2


class InputError(CapsfusionError):
    """A file, column, option, setting or lake is invalid or missing."""


class MissingDependencyError(CapsfusionError):
    """A program or a Python package is not installed."""


class GateRefusedError(CapsfusionError):
    """An expectation of the quality gate failed, so nothing was published."""

    exit_code = 1


class RetryError(CapsfusionError):
    """A temporary failure, such as a full disk or an unreachable server; once it is over, the same command resumes."""

    exit_code = 3


class BudgetError(RetryError):
    """The budget is used up; finished rows are kept, and a run with a higher budget resumes after them."""


INSTALL_WORKERS = "install capsfusion-lake[workers] there, or ship a packed environment (docs/running.md)"

# Failures of clusters: a pattern of the message of Spark, Python or an object store, our exception, its message.
_OF_CLUSTERS: tuple[tuple[str, type[CapsfusionError], str], ...] = (
    (
        r"(?s)PYTHON_VERSION_MISMATCH.*?(\d+\.\d+).*?(\d+\.\d+)",
        InputError,
        "the workers run Python {0}, the driver runs {1}: set spark.pyspark.python (or PYSPARK_PYTHON) to the same "
        "minor version on both",
    ),
    (
        r"ModuleNotFoundError: No module named '([\w.]+)'",
        MissingDependencyError,
        f"the Python that runs this code has no module {{0}}: {INSTALL_WORKERS}",
    ),
    (
        r"REQUIRES_SINGLE_PART_NAMESPACE[^\n]*identifier `([^`]+)`\.`([^`]+)`",
        InputError,
        "--lake {0}.{1} is read as a schema of the catalog {0}, which there is not: for a folder of this name write "
        "./{0}.{1}",
    ),
    (
        r"(?i)not.enough.memory.to.build.and.broadcast|cannot broadcast the table|spark\.driver\.maxResultSize",
        RetryError,
        "the driver has too little memory to broadcast a table: give it more (--driver-memory, "
        "spark.driver.maxResultSize) or set spark.sql.autoBroadcastJoinThreshold=-1, and run the same command again",
    ),
    (
        r"OutOfMemoryError: (?:Java heap space|GC overhead)",
        RetryError,
        "a JVM of Spark ran out of memory: give executors and driver more (--executor-memory, --driver-memory), and "
        "run the same command again",
    ),
    (
        r"ExpiredToken|RequestExpired|TokenRefreshRequired|[Tt]oken (?:has|is) expired|CredentialsExpired",
        RetryError,
        "the credentials have expired: renew them and run the same command again",
    ),
    (
        r"NoAuthWithAWSException|No AWS Credentials provided|Unable to load credentials|InvalidAccessKeyId",
        InputError,
        "no valid credentials for the object store: add them to the usual chain (environment, profile, role)",
    ),
)


def explain(error: BaseException) -> CapsfusionError | None:
    """Translate a failure of a lower layer (Spark, file system) into an error of this module; None for a bug."""
    if isinstance(error, CapsfusionError):
        return error
    text = str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or any(sign in text for sign in _DISK_FULL):
        return RetryError("no space left on the disk: make room and run the same command again")
    by_delta_rs = type(error).__name__ == "CommitFailedError"
    if by_delta_rs or "DELTA_CONCURRENT" in text or "ConcurrentModification" in text:
        return RetryError("another run committed to the same table first: run the same command again")
    if "Connection closed by peer" in text or "remote worker crashing" in text:
        return RetryError("another rank ended: see its log for the cause, and run the same command again to resume")
    for line in text.splitlines():  # an error raised in a Spark worker arrives as text
        name, _, message = line.partition(": ")
        ours = {c.__name__: c for c in (InputError, MissingDependencyError, RetryError)}.get(name.rpartition(".")[2])
        if ours is not None and message:
            return ours(message)
    for pattern, kind, words in _OF_CLUSTERS:
        if found := re.search(pattern, text):
            return kind(words.format(*found.groups()))
    if isinstance(error, PermissionError) or "Permission denied" in text:
        return InputError(f"permission denied: {first_line(text)}")
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError | FileExistsError):
        return InputError(f"{error.filename or 'a file'}: {error.strerror or first_line(text)}")
    unreadable = _UNREADABLE.search(text)
    if unreadable:
        return InputError(f"cannot read {unreadable.group(1)}: is it damaged?")
    return None


def first_line(text: str) -> str:
    """Return the first line of `text` that is not blank, cut to 300 characters."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no message")
    return line if len(line) <= 300 else f"{line[:299]}…"
