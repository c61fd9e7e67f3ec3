"""The cards of a snapshot in its lake: `_capsfusion/cards/NAME.md` and `NAME.croissant.json`."""

from pathlib import Path

from capsfusion_etl.cards.croissant import croissant
from capsfusion_etl.cards.facts import facts_of
from capsfusion_etl.cards.holding import Holding
from capsfusion_etl.cards.readme import readme
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import write_whole


def write_cards(lake: Lake, manifest: Manifest, contact: str | None) -> Path:
    """Write the cards of a snapshot, unless they are there with this contact; return the path of the one for people."""
    metadata, page = paths_of(lake, manifest)
    if page.is_file() and (contact is None or contact in page.read_text(encoding="utf-8")):
        return page
    facts = facts_of(lake, manifest, contact)
    holding = Holding(
        name=manifest.name, version=manifest.sha256(), form="parquet", paths={}, columns=manifest.columns, images=True,
        files=tuple((f"{manifest.table}/{file.path}", file.size, file.sha256) for file in manifest.files),
    )  # fmt: skip
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(metadata, croissant(facts, holding))
    write_whole(page, readme(facts, holding))
    return page


def paths_of(lake: Lake, manifest: Manifest) -> tuple[Path, Path]:
    """Return the paths of the cards of a snapshot: for machines, and for people."""
    folder = lake.folder / "cards"
    return folder / f"{manifest.name}.croissant.json", folder / f"{manifest.name}.md"
