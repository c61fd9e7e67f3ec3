"""`capsfusion sql`: SQL queries over the tables of a lake, answered by DuckDB where that is possible, else by Spark."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from capsfusion_etl.console import say
from capsfusion_etl.errors import InputError, first_line
from capsfusion_etl.lake import views
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.queries.embedded_sql import NotHereError, ask

MAX_ROWS = 1_000
ENGINES = ("auto", "duckdb", "spark")


def show(
    lake: Lake, query: str, output: str = "table", engine: str = "auto", prepare: Callable[[], None] = lambda: None
) -> None:
    """Run `query` and print its result.

    Args:
        lake: the lake, whose tables become temporary views.
        query: the SQL, in Spark's dialect.
        output: `table` prints at most MAX_ROWS rows; `csv` and `json` (one object per line) print all.
        engine: `auto` is DuckDB if it can run the query, else Spark, with a line that says why.
        prepare: called before Spark runs the query.

    Raises:
        InputError: an unknown format or engine, or invalid SQL; the message is then the first line of the engine's.
    """
    if output not in ("table", "csv", "json"):
        raise InputError(f"--format {output}: unknown format; use table, csv or json")
    if engine not in ENGINES:
        raise InputError(f"--engine {engine}: unknown engine; use {', '.join(ENGINES)}")
    columns, rows = _answer(lake, query, engine, prepare)
    if output == "json":
        for row in rows:
            values = dict(zip(columns, row, strict=True))
            print(json.dumps(values, default=_text, ensure_ascii=False))
    elif output == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_text(v) for v in row] for row in rows)
    else:
        _print_table(columns, rows)


def _answer(
    lake: Lake, query: str, engine: str, prepare: Callable[[], None]
) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    if engine != "spark":
        try:
            return ask(lake, query)
        except NotHereError as why:
            if engine == "duckdb":
                raise InputError(f"DuckDB cannot run this query: {why}; use --engine spark") from None
            if lake.is_local:
                say(f"sql       by Spark, because DuckDB cannot run this query: {why}")
    prepare()
    return _by_spark(lake, query)


def _by_spark(lake: Lake, query: str) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    from pyspark.errors import AnalysisException, ParseException

    views.create(lake)
    try:
        answer = lake.spark.sql(query)
    except (AnalysisException, ParseException) as error:
        raise InputError(f"SQL: {first_line(str(error))}") from None
    return answer.columns, (tuple(row.asDict(recursive=True).values()) for row in answer.toLocalIterator())


def _print_table(columns: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    table = Table(*columns)
    more = False
    for number, row in enumerate(rows):
        if more := number == MAX_ROWS:
            break
        table.add_row(*(_text(value) for value in row))
    console = Console(markup=False, highlight=False)
    console.print(table)
    if more:
        console.print(f"showing the first {MAX_ROWS} rows; --format csv prints all")


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    return str(value)
