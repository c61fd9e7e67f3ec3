"""Parquet: as plain columns, or as Hugging Face's datasets store them, with an Image feature."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from capsfusion_etl.exports.formats.base import Format, ShardRecord, Written, regrouped, suffix_of
from capsfusion_etl.exports.output import FileRecord, written
from capsfusion_etl.storage import filesystem_of

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_FEW_VALUES = ["caption_from", "strategy", "split", "verdict", "source"]  # columns for which a dictionary pays


class Parquet(Format):
    """A Parquet file for each shard, with the columns as they are."""

    folder = ""

    def write(self, target: Path, shard: str, rows: Iterable[pa.Table], schema: pa.Schema) -> Written:
        """Write a Parquet file; see `Format`."""
        schema, name = self.stored(schema), f"{self.folder}{shard}.parquet"
        codecs = {leaf: "none" if leaf in ("image", "image.bytes") else "zstd" for leaf in _leaves(schema)}
        few = [name for name in _FEW_VALUES if name in schema.names]
        with (
            written(target, name) as out,
            pq.ParquetWriter(out, schema, compression=codecs, use_dictionary=few) as file,
        ):
            for table in regrouped(rows):
                file.write_table(self.encoded(table).cast(schema))
        return Written((out.record(name),))

    def read(self, target: Path, shard: ShardRecord) -> Iterator[pa.Table]:
        """Yield the row groups of a Parquet file; see `Format`."""
        files, path = filesystem_of(str(target / f"{self.folder}{shard.name}.parquet"))
        with pq.ParquetFile(path, filesystem=files) as file:
            for group in range(file.num_row_groups):
                yield self.decoded(file.read_row_group(group)).replace_schema_metadata()

    def finish(self, target: Path, shards: list[ShardRecord]) -> list[FileRecord]:
        """Return nothing: Parquet files need no index."""
        return []

    def paths(self, splits: Iterable[str]) -> dict[str, str]:
        """Return the patterns of the Parquet files."""
        return {split: f"{self.folder}{split}-*.parquet" for split in splits}

    def stored(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema of the files for rows with `schema`."""
        return schema

    def encoded(self, rows: pa.Table) -> pa.Table:
        """Return rows as the files store them."""
        return rows

    def decoded(self, rows: pa.Table) -> pa.Table:
        """Return stored rows as they were given."""
        return rows


class HuggingFace(Parquet):
    """Parquet files in `data`, whose pictures are structs of bytes and a file name, with the features as metadata."""

    folder = "data/"

    def stored(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema with the type and the metadata of an Image feature."""
        features = {name: {"dtype": "string", "_type": "Value"} for name in schema.names if name != "image"}
        if "image" in schema.names:
            schema = schema.set(schema.get_field_index("image"), pa.field("image", _IMAGE))
            features["image"] = {"_type": "Image"}
        ordered = {name: features[name] for name in schema.names}
        return schema.with_metadata({"huggingface": json.dumps({"info": {"features": ordered}})})

    def encoded(self, rows: pa.Table) -> pa.Table:
        """Give each picture a file name."""
        if "image" not in rows.column_names:
            return rows
        images = rows["image"].combine_chunks()
        heads = pc.binary_slice(images, 0, 16).to_pylist()
        names = [
            None if head is None else f"{pair_id}.{suffix_of(head)}"
            for pair_id, head in zip(rows["pair_id"].to_pylist(), heads, strict=True)
        ]
        pictures = pa.StructArray.from_arrays(
            [images, pa.array(names, pa.string())], fields=list(_IMAGE), mask=images.is_null()
        )
        return rows.set_column(rows.column_names.index("image"), "image", pictures)

    def decoded(self, rows: pa.Table) -> pa.Table:
        """Return the bytes of the pictures alone."""
        if "image" not in rows.column_names:
            return rows
        images = pc.struct_field(rows["image"], "bytes")
        return rows.set_column(rows.column_names.index("image"), "image", images)


def _leaves(schema: pa.Schema) -> Iterator[str]:
    for field in schema:
        inner = [f"{field.name}.{part.name}" for part in field.type] if pa.types.is_struct(field.type) else []
        yield from inner or [field.name]
