"""Count kinds of noise in real alt-texts: the rates of this world's alt-text come from here, before any training.

python examples/claim/noise.py ROWS.parquet COLUMN
"""

import re
import sys

import pyarrow.parquet as pq
from capsfusion_etl.judge import Row

# Kind -> what shows it; a text counts for the first kind that it shows.
KINDS = {
    "file_name": re.compile(r"^\S+\.(jpe?g|png|gif|webp)$|^(IMG|DSC|DSCN|P|image)[-_ ]?\d+\b|^[\w-]+_[\w-]+$", re.I),
    "site": re.compile(
        r"\s[|–—·•»-]\s(?=[^|–—·•»-]{2,40}$)|stock (photo|image|vector)|shutterstock|pinterest|flickr", re.I
    ),
    "offer": re.compile(r"[$€£]\s?\d|\b(sale|free shipping|buy|price|off|order|cheap)\b", re.I),
    "cut_off": re.compile(r"(\.\.\.|…|\b(and|the|of|in|with|for|a|to|on))$", re.I),
}


def kind_of(text: str) -> str:
    """Return the kind of noise that a text shows first; else whether it states a name or number, or nothing."""
    for kind, shows in KINDS.items():
        if shows.search(text.strip()):
            return kind
    grounding = Row.of(text, "", "").grounding
    return "named" if grounding.lost or grounding.kept else "nameless"


def main(path: str, column: str) -> None:
    texts = [text for text in pq.read_table(path, columns=[column]).column(0).to_pylist() if text]
    found = [kind_of(text) for text in texts]
    for kind in (*KINDS, "named", "nameless"):
        print(f"{kind:10s} {found.count(kind) / len(found):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
