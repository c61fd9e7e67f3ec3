"""`capsfusion sql`: SQL queries over the tables of a lake."""

import csv
import json
import sys

from rich.console import Console
from rich.table import Table

from capsfusion_etl.errors import InputError, first_line
from capsfusion_etl.lake import views
from capsfusion_etl.lake.lake import Lake

MAX_ROWS = 1_000


def show(lake: Lake, query: str, output: str = "table") -> None:
    """Run `query` and print its result.

    Args:
        lake: the lake, whose tables become temporary views.
        query: the SQL.
        output: `table` prints at most MAX_ROWS rows; `csv` and `json` (one object per line) print all.

    Raises:
        InputError: an unknown format or invalid SQL; the message is then the first line of Spark's.
    """
    from pyspark.errors import AnalysisException, ParseException

    if output not in ("table", "csv", "json"):
        raise InputError(f"--format {output}: unknown format; use table, csv or json")
    views.create(lake)
    try:
        answer = lake.spark.sql(query)
    except (AnalysisException, ParseException) as error:
        raise InputError(f"SQL: {first_line(str(error))}") from None
    if output == "json":
        for row in answer.toLocalIterator():
            print(json.dumps(row.asDict(recursive=True), default=_text, ensure_ascii=False))
    elif output == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(answer.columns)
        writer.writerows([_text(v) for v in row] for row in answer.toLocalIterator())
    else:
        _print_table(answer.columns, [[_text(v) for v in row] for row in answer.limit(MAX_ROWS + 1).collect()])


def _print_table(columns: list[str], rows: list[list[str]]) -> None:
    table = Table(*columns)
    for row in rows[:MAX_ROWS]:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)
    console.print(table)
    if len(rows) > MAX_ROWS:
        console.print(f"showing the first {MAX_ROWS} rows; --format csv prints all")


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    return str(value)
