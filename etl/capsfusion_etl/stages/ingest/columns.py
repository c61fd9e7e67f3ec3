"""Give the rows of tables, whose columns may differ, the columns of a source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from capsfusion_etl.errors import InputError
from capsfusion_etl.stages.ingest.config import AMPERSAND, LAYOUTS, SourceConfig, check_addresses, mapping_of
from capsfusion_etl.tables import identifier

_INLINE = ("jpg", "png", "webp")  # columns in which img2dataset stores the bytes of an image
_NESTED = (T.ArrayType, T.StructType, T.MapType)


@dataclass(slots=True)
class Source:
    """The rows of a source.

    Attributes:
        rows: columns url and raw_caption (strings, never null), extra (map of every other column); bytes, if the source
            contains images: null if they exceed the limit, empty if a row has no image; malformed, if the source is
            text: what is wrong with a record, null if it is sound. A synthetic caption of the source is
            `extra['synthetic_caption']`.
        left_out: columns that cannot be read as text, each with its type.
    """

    rows: DataFrame
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of a source that have the same columns.

    Attributes:
        name: the table, or one of the files, for messages.
        rows: its columns as they are.
    """

    name: str
    rows: DataFrame

    def kind(self, path: str) -> T.DataType | None:
        """Return the type of a column, or of the part of it that the path names; None if there is none."""
        kind: T.DataType = self.rows.schema
        through_list = False
        for name in [path] if path in self.rows.columns else path.split("."):
            if isinstance(kind, T.ArrayType):
                kind, through_list = kind.elementType, True
            if not isinstance(kind, T.StructType) or name not in kind.names:
                return None
            kind = kind[name].dataType
        return T.ArrayType(kind) if through_list else kind

    def column(self, path: str) -> Column:
        """Return a column, or the part of it that the path names; of a list of structs, that part of each."""
        whole = path in self.rows.columns
        return F.col(identifier(path) if whole else ".".join(map(identifier, path.split("."))))


def shaped(groups: list[Group], config: SourceConfig, left_out: dict[str, str]) -> Source:
    """Give all groups the columns of `Source.rows`, and put them together.

    Raises:
        InputError: a column is missing, is not of the same kind in all groups, or is no text.
    """
    mapping = mapping_of({group.name: group.rows.columns for group in groups}, config)
    _check_alike(groups, mapping)
    picture = next((column for group in groups if (column := _picture(group.rows, mapping))), None)
    shapes = [_shape(group, mapping, picture, config.explode is not None, left_out) for group in groups]
    check_addresses(mapping, picture, groups[0].rows.columns)
    return Source(reduce(DataFrame.unionByName, shapes), left_out)


def _check_alike(groups: list[Group], mapping: Mapping[str, str]) -> None:
    for ours, theirs in mapping.items():
        kinds = {group.name: kind for group in groups if (kind := group.kind(theirs)) is not None}
        if not kinds:
            raise InputError(f"{groups[0].name} has no column {theirs!r}, which --column names")
        first: dict[str, str] = {}
        for name, kind in kinds.items():
            first.setdefault(kind.simpleString() if isinstance(kind, _NESTED) else "text", name)
        if len(first) > 1:
            (one, here), (other, there) = list(first.items())[:2]
            raise InputError(f"{theirs} ({ours}) is {one} in {here}, but {other} in {there}: ingest them one by one")


def _picture(rows: DataFrame, mapping: Mapping[str, str]) -> str | None:
    """Return the column with the bytes of images: named, of img2dataset, or an Image of Hugging Face's datasets."""
    if "image" in mapping:
        return mapping["image"]
    if mapping == LAYOUTS["img2dataset"]:
        found = next((column for column in _INLINE if column in rows.columns), None)
        if found:
            return found
    return next((f.name for f in rows.schema if _is_image(f.dataType)), None)


def _is_image(kind: T.DataType | None) -> bool:
    return (
        isinstance(kind, T.StructType)
        and set(kind.names) == {"bytes", "path"}
        and isinstance(kind["bytes"].dataType, T.BinaryType)
    )


def _shape(
    group: Group, mapping: Mapping[str, str], picture: str | None, explode: bool, left_out: dict[str, str]
) -> DataFrame:
    raw, kind = _caption(group, mapping["raw_caption"], explode)
    extra: dict[str, Column] = {}
    for column in group.rows.schema:
        if column.name in (*mapping.values(), picture):
            continue
        if _has_bytes(column.dataType):
            left_out[column.name] = column.dataType.simpleString()
        else:
            extra[column.name] = _text(F.col(identifier(column.name)), column.dataType)
    seen = mapping.get("synthetic_caption")
    if seen is not None and group.kind(seen) is not None:
        extra["synthetic_caption"] = _scalar(group, seen)
    url = _scalar(group, mapping["url"]) if "url" in mapping else _address(group, picture)
    url = F.regexp_replace(F.trim(F.coalesce(url, F.lit(""))), AMPERSAND, "&")
    inline = [] if picture is None else [_bytes(group, picture).alias("bytes")]
    rows = group.rows.select(url.alias("url"), raw.alias("raw_caption"), _map(extra).alias("extra"), *inline)
    return rows.withColumn("raw_caption", F.coalesce(_text(F.col("raw_caption"), kind), F.lit("")))


def _address(group: Group, picture: str | None) -> Column:
    """Return an address of the content of a picture; if that is not here, the path that an Image column tells."""
    if picture is None:
        return F.lit("")
    data, path = _bytes(group, picture), F.lit("")
    if _is_image(group.kind(picture)):
        path = F.coalesce(group.column(picture)["path"], path)
    return F.when(F.length(data) > 0, F.concat(F.lit("sha256:"), F.sha2(data, 256))).otherwise(path)


def _caption(group: Group, theirs: str, explode: bool) -> tuple[Column, T.DataType]:
    """Return the raw caption, of lists one row for each, and its type."""
    column, kind = group.column(theirs), group.kind(theirs) or T.StringType()
    if isinstance(kind, T.ArrayType):
        if not explode:
            raise InputError(
                f"{group.name}: {theirs} is a list of captions ({kind.simpleString()}): make a pair of each with "
                "--explode raw_caption"
            )
        column, kind = F.explode_outer(column), kind.elementType
    if isinstance(kind, T.StructType):
        raise InputError(
            f"{group.name}: {theirs} is a struct: name the text in it with --column raw_caption={theirs}."
            f"{kind.names[0]}; it has {', '.join(kind.names)}"
        )
    return column, kind


def _scalar(group: Group, theirs: str) -> Column:
    kind = group.kind(theirs) or T.StringType()
    if isinstance(kind, _NESTED):
        raise InputError(
            f"{group.name}: {theirs} is {kind.simpleString()}, where one text is wanted: name another with --column"
        )
    return _text(group.column(theirs), kind)


def _bytes(group: Group, theirs: str) -> Column:
    kind = group.kind(theirs)
    if kind is None:
        return F.lit(b"")
    if not _is_image(kind) and not isinstance(kind, T.BinaryType):
        raise InputError(f"{group.name}: {theirs} is {kind.simpleString()}, where the bytes of an image are wanted")
    column = group.column(theirs)
    return F.coalesce(column["bytes"] if _is_image(kind) else column, F.lit(b""))


def _has_bytes(kind: T.DataType) -> bool:
    if isinstance(kind, T.StructType):
        return any(_has_bytes(f.dataType) for f in kind)
    return isinstance(kind, T.BinaryType) or (isinstance(kind, T.ArrayType) and _has_bytes(kind.elementType))


def _text(column: Column, kind: T.DataType) -> Column:
    """Return a column as valid text; a list, a struct or a map as JSON."""
    if isinstance(kind, _NESTED):
        return F.to_json(column)
    text = column.cast("string")
    if not isinstance(kind, T.StringType | T.BinaryType):
        return text
    valid = getattr(F, "make_valid_utf8", None)  # Spark 4
    made: Column = valid(text) if valid else F.decode(F.encode(text, "UTF-8"), "UTF-8")
    return made


def _map(columns: dict[str, Column]) -> Column:
    if not columns:
        return F.create_map().cast("map<string, string>")
    pairs = F.create_map(*(part for name, value in columns.items() for part in (F.lit(name), value)))
    return F.map_filter(pairs, lambda _, value: value.isNotNull())
