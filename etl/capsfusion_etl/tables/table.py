"""What a table is: its columns, its key, its schema in SQL. Pure."""

from dataclasses import dataclass

VERSION = "6"
VERSION_PROPERTY = "capsfusion.tables"
_TEXTS = (
    "url", "final_url", "raw_caption", "caption", "synthetic_caption", "answer", "detail", "verdict_detail", "observed",
    "error", "proof", "value",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """One Delta table. `columns` are (name, Spark SQL type, comment); `key` is unique."""

    name: str
    comment: str
    key: tuple[str, ...]
    columns: tuple[tuple[str, str, str], ...]
    partition_by: tuple[str, ...] = ()

    def schema(self, *, without: tuple[str, ...] = ()) -> str:
        """Spark's short schema string, for readers and UDFs."""
        return ", ".join(f"{name} {kind}" for name, kind, _ in self.columns if name not in without)

    def indexed(self) -> str:
        """Columns whose least and greatest values the table's log may keep.

        None that repeats what people wrote, as a log outlives the rows that are taken down.
        """
        plain = ("string", "int", "bigint", "double", "timestamp")  # of these Delta keeps values
        names = (name for name, kind, _ in self.columns if kind in plain and name not in _TEXTS)
        return ",".join(name for name in names if name not in self.partition_by)

    def ddl(self) -> str:
        """Column list of a CREATE TABLE, comments included."""
        return ", ".join(f"{name} {kind} COMMENT {literal(comment)}" for name, kind, comment in self.columns)


def literal(text: str) -> str:
    """Return `text` as a string literal of Spark SQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def identifier(text: str) -> str:
    """Return `text` as a quoted identifier of Spark SQL: a column, or the path of a Delta table."""
    return f"`{text.replace('`', '``')}`"


# Columns that many tables share.
PAIR_ID = ("pair_id", "string", "sha256 over canonical url and raw caption")
RUN_ID = ("run_id", "string", "the run that wrote the row; see runs")
