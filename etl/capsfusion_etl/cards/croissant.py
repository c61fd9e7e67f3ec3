"""The data card for machines: Croissant 1.0 (MLCommons), JSON-LD that data set search and loaders read. Pure."""

import json
from typing import Any

from capsfusion_etl.cards.holding import MEDIA, PARQUET, Holding
from capsfusion_etl.cards.readme import CITATION

# The context of the standard: its names are written without a prefix.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
} | {
    name: f"cr:{name}"
    for name in (
        "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet", "format",
        "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references",
        "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
    )
}  # fmt: skip


def croissant(facts: dict[str, Any], holding: Holding) -> str:
    """Return the metadata of a snapshot or an export as JSON.

    The columns are described where loaders of the standard can reach them, which is in Parquet files.
    """
    licences = sorted({licence for _, licence, _ in facts["sources"] if licence})
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": holding.name,
        "description": f"{facts['rows']} image-text pairs, strategy {facts['strategy']}",
        "license": licences or ["as given by the sources"],
        "version": f"1.0.0+{holding.version[:16]}",
        "identifier": f"sha256:{facts['pin']['manifest_sha256']}",
        "citeAs": CITATION,
        "distribution": [
            *(_files(split, holding) for split in holding.paths),
            *(_file(*file, holding) for file in holding.files),
        ],
        "recordSet": [_records(split, holding) for split in holding.paths if MEDIA[holding.form] == PARQUET],
    }
    if facts["checked_at"]:
        document["datePublished"] = facts["checked_at"]
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _files(split: str, holding: Holding) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet", "@id": f"{split}-files", "name": f"{split}-files",
        "encodingFormat": MEDIA[holding.form], "includes": holding.paths[split],
    }  # fmt: skip


def _file(address: str, size: int, sha256: str, holding: Holding) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject", "@id": sha256, "name": address.rpartition("/")[2], "contentUrl": address,
        "contentSize": f"{size} B", "sha256": sha256, "encodingFormat": MEDIA[holding.form],
    }  # fmt: skip


def _records(split: str, holding: Holding) -> dict[str, Any]:
    fields = [_field(split, name, holding) for name in holding.columns]
    return {
        "@type": "cr:RecordSet", "@id": split, "name": split, "key": {"@id": f"{split}/pair_id"}, "field": fields
    }  # fmt: skip


def _field(split: str, name: str, holding: Holding) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": f"{split}-files"}, "extract": {"column": name}}
    if name == "image" and holding.form == "huggingface":
        source["transform"] = {"jsonPath": "bytes"}
    kind = "sc:ImageObject" if name == "image" else "sc:Text"
    return {"@type": "cr:Field", "@id": f"{split}/{name}", "name": name, "dataType": kind, "source": source}
