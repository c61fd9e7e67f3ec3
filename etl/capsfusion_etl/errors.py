"""Everything this project raises on purpose, sorted by what the caller does next; each class carries its exit status.

0    done
1    the quality gate refused               -> look at the report, fix the data or the threshold
2    bad input, or something is missing     -> fix what the message names, run again
3    the machine ran out of something       -> make room, run the same command again
70   a bug of ours                     -> the message names a file with the trace
130  interrupted (Ctrl-C), 143 terminated   -> run the same command again: it goes on where it stopped
"""

import errno
import re

# Spark's error classes for a data file that is not what its name says, and the file.
_UNREADABLE = re.compile(
    r"(?:FAILED_READ_FILE|CANNOT_READ_FILE)[^\n]*?((?:file|s3a?|abfss?|gs|hdfs|dbfs):/[^\s,]+?)[.,]?(?:\s|$)"
)
# How the system, Java and safetensors say it, and how torch.save does, which names no reason.
_DISK_FULL = ("No space left on device", "Disk quota exceeded", "iostream error", "inline_container.cc")


class CapsfusionError(Exception):
    """Base of the tree. `str(error)` is one line for people: what is wrong and what to do."""

    exit_code = 2


class InputError(CapsfusionError):
    """A file, column, option, setting or lake is not as it must be: fix it."""


class MissingDependencyError(CapsfusionError):
    """A program or an extra is not installed: install it."""


class GateRefusedError(CapsfusionError):
    """The quality gate found a failing expectation: nothing was published."""

    exit_code = 1


class RetryError(CapsfusionError):
    """Disk full, a server away: the same command continues once there is room again."""

    exit_code = 3


class BudgetError(RetryError):
    """The budget is used up: what was made is there, a higher one goes on from it."""


INSTALL_WORKERS = "install capsfusion-lake[workers] there, or send a packed environment along (docs/running.md)"

# What is wrong with a cluster, as Spark, Python and the object stores say it, and what to do about it.
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
        f"the Python that runs this has no module {{0}}: {INSTALL_WORKERS}",
    ),
    (
        r"(?i)not.enough.memory.to.build.and.broadcast|cannot broadcast the table|spark\.driver\.maxResultSize",
        RetryError,
        "the driver has too little memory for a table that it sends to all workers: give it more (--driver-memory, "
        "spark.driver.maxResultSize) or set spark.sql.autoBroadcastJoinThreshold=-1, and run the same command again",
    ),
    (
        r"OutOfMemoryError: (?:Java heap space|GC overhead)",
        RetryError,
        "a JVM of Spark's ran out of memory: give executors and driver more (--executor-memory, --driver-memory), and "
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
        "no valid credentials for the object store: the usual chain (environment, profile, role) has none",
    ),
)


def explain(error: BaseException) -> CapsfusionError | None:
    """The tree's error for a failure that came from below (Spark, the file system), or None for a bug of ours."""
    if isinstance(error, CapsfusionError):
        return error
    text = str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or any(sign in text for sign in _DISK_FULL):
        return RetryError("no space left on the disk: make room and run the same command again")
    if "DELTA_CONCURRENT" in text or "ConcurrentModification" in text:
        return RetryError("another run wrote to the same table at the same time, and won: run the same command again")
    if "Connection closed by peer" in text or "remote worker crashing" in text:
        return RetryError("another rank ended: its own log says why; run the same command again, and it goes on")
    for line in text.splitlines():  # an error of ours that crossed a Spark worker comes back as text
        name, _, message = line.partition(": ")
        ours = {c.__name__: c for c in (InputError, MissingDependencyError, RetryError)}.get(name.rpartition(".")[2])
        if ours is not None and message:
            return ours(message)
    for pattern, kind, words in _OF_CLUSTERS:
        if found := re.search(pattern, text):
            return kind(words.format(*found.groups()))
    if isinstance(error, PermissionError) or "Permission denied" in text:
        return InputError(f"no permission to write: {first_line(text)}")
    unreadable = _UNREADABLE.search(text)
    if unreadable:
        return InputError(f"cannot read {unreadable.group(1)}: is it damaged?")
    return None


def first_line(text: str) -> str:
    """The first line that says something, at most 300 characters."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no message")
    return line if len(line) <= 300 else f"{line[:299]}…"
