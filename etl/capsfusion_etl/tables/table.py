"""`Table`: the columns, the key and the SQL schema of a Delta table. Pure."""

from dataclasses import dataclass

VERSION = "8"  # layout of the tables; a lake of another layout is not opened
VERSION_PROPERTY = "capsfusion.tables"
# Columns with text of people or models.
_TEXTS = (
    "url", "final_url", "raw_caption", "caption", "synthetic_caption", "answer", "detail", "verdict_detail", "observed",
    "error", "proof", "value",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """One Delta table.

    Attributes:
        name: name of the table, and of its folder in a path lake.
        comment: what the table contains.
        key: columns whose values together are unique.
        columns: name, Spark SQL type and comment of each column.
        partition_by: partition columns.
    """

    name: str
    comment: str
    key: tuple[str, ...]
    columns: tuple[tuple[str, str, str], ...]
    partition_by: tuple[str, ...] = ()

    def schema(self, *, without: tuple[str, ...] = ()) -> str:
        """Return Spark's schema string, for readers and UDFs; the columns in `without` are left out."""
        return ", ".join(f"{name} {kind}" for name, kind, _ in self.columns if name not in without)

    def indexed(self) -> str:
        """Return the columns whose minimum and maximum the Delta log may store, separated by commas.

        Texts are excluded, because the log outlives rows that are taken down.
        """
        plain = ("string", "int", "bigint", "double", "timestamp")  # types for which Delta stores them
        names = (name for name, kind, _ in self.columns if kind in plain and name not in _TEXTS)
        return ",".join(name for name in names if name not in self.partition_by)

    def ddl(self) -> str:
        """Return the column list of a CREATE TABLE statement, with comments."""
        return ", ".join(f"{name} {kind} COMMENT {literal(comment)}" for name, kind, comment in self.columns)


def literal(text: str) -> str:
    """Return `text` as a string literal of Spark SQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def plain_literal(text: str) -> str:
    """Return `text` as a string literal of DuckDB and DataFusion, which know no escapes but a doubled quote."""
    return "'" + text.replace("'", "''") + "'"


def identifier(text: str) -> str:
    """Return `text` as a quoted identifier of Spark SQL, for a column or the path of a Delta table."""
    return f"`{text.replace('`', '``')}`"


# Columns that several tables share.
PAIR_ID = ("pair_id", "string", "sha256 of the canonical URL and the raw caption")
RUN_ID = ("run_id", "string", "run that wrote the row, see runs")
