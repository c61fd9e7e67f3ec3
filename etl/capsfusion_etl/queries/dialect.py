"""Spark's SQL in DuckDB's dialect. Only what is known to mean the same in both is translated."""

import re
from urllib.parse import urlsplit

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError

from capsfusion_etl.errors import first_line
from capsfusion_etl.lake.blocklist import NAMES
from capsfusion_etl.queries.embedded_sql import NotHereError

HOST = "capsfusion_host"  # our function in DuckDB for parse_url(url, 'HOST')
# Functions whose translation gives the same rows; sqlglot also treats operators such as AND as functions.
_SAME = (
    exp.Abs, exp.And, exp.ArgMax, exp.ArgMin, exp.Array, exp.ArraySize, exp.Avg, exp.Case, exp.Cast, exp.Ceil,
    exp.Coalesce, exp.Concat, exp.Count, exp.CountIf, exp.DenseRank, exp.Explode, exp.Floor, exp.If, exp.Lag, exp.Lead,
    exp.Length, exp.Lower, exp.Max, exp.Min, exp.Nullif, exp.Or, exp.ParseUrl, exp.Rank, exp.Round, exp.RowNumber,
    exp.Sum, exp.Trim, exp.TryCast, exp.Upper, exp.Xor,
)  # fmt: skip
_OURS = {"capsfusion_grounding", NAMES}


def translated(query: str) -> str:
    """Return a query of Spark's dialect in DuckDB's.

    Raises:
        NotHereError: it is not a single query, or uses what may mean something else in DuckDB.
    """
    try:
        statements = sqlglot.parse(query, read="spark")
        if len(statements) != 1 or not isinstance(statements[0], exp.Query):
            raise NotHereError("this is not a single SELECT")
        named = _named(statements[0])
        return named.transform(_same).sql(dialect="duckdb", unsupported_level=ErrorLevel.RAISE)
    except SqlglotError as error:
        raise NotHereError(first_line(str(error))) from None


def _named(query: exp.Query) -> exp.Query:
    """Give the columns of a SELECT without an alias the names that Spark gives them."""
    if isinstance(query, exp.Select):
        for column in query.expressions:
            if not isinstance(column, exp.Alias | exp.Column | exp.Star | exp.Dot | exp.Explode):
                name = column.sql(dialect="spark", normalize_functions="lower").replace("count(*)", "count(1)")
                column.replace(exp.alias_(column.copy(), name, quoted=True))
    return query


def _same(node: exp.Expr) -> exp.Expr:
    """Replace what DuckDB spells or treats in another way.

    Raises:
        NotHereError: a function is not known to be the same.
    """
    if isinstance(node, exp.ParseUrl) and node.args["part_to_extract"].name == "HOST":
        return exp.Anonymous(this=HOST, expressions=[node.this])
    if isinstance(node, exp.ArgMax | exp.ArgMin):  # Spark's max_by returns a null if that is what the row has
        name = "arg_max_null" if isinstance(node, exp.ArgMax) else "arg_min_null"
        return exp.Anonymous(this=name, expressions=[node.this, node.expression])
    if isinstance(node, exp.Like | exp.ILike) and not isinstance(node.parent, exp.Escape):
        return exp.Escape(this=node.copy(), expression=exp.Literal.string("\\"))
    known = isinstance(node, _SAME) or (isinstance(node, exp.Anonymous) and node.name.lower() in _OURS)
    if isinstance(node, exp.Func) and not known:
        name = node.name if isinstance(node, exp.Anonymous) else node.sql_name()
        raise NotHereError(f"{name.lower()}() may mean something else there")
    return node


def host_of(url: str) -> str | None:
    """Return the host of `url` as Spark's `parse_url` does: in the case in which it is written, null if it has none."""
    try:
        place = urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return None
    return re.sub(r":\d*$", "", place) or None
