"""Test the parsing of CSV, TSV and JSON: a malformed record costs itself, and nothing else is lost or guessed."""

import gzip
import json
import random
import string
from pathlib import Path

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.stages.ingest.records import Malformed, Part, Record, records_of


def parsed(path: Path, text: str | bytes, **part: object) -> list[Record]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    kind = {".csv": "csv", ".tsv": "tsv"}.get(path.suffix, "json")
    return [record for _, record in records_of(Part(str(path), kind, **part))]  # type: ignore[arg-type]


def shown(records: list[Record]) -> list[object]:
    return [r.why.partition(":")[0] if isinstance(r, Malformed) else tuple(r.values()) for r in records]


ODD = ['"', "\t", ",", "\\", "{", "\x00", "\u2028", *string.printable]
OPEN = "a quote that is never closed"


@pytest.mark.parametrize(
    ("name", "text", "records"),
    [
        ("a.csv", 'a,b\n1,"x, ""y"""\n2,"two\nlines"\n\n3,z', [("1", 'x, "y"'), ("2", "two\nlines"), ("3", "z")]),
        ("a.csv", "\ufeffa,b\r\n1,x\r\n2,y\r\n", [("1", "x"), ("2", "y")]),
        ("open.tsv", 'a\tb\n1\tx\n"2\ty\n3\tz\n4\tw\n', [("1", "x"), OPEN, ("3", "z"), ("4", "w")]),
        ("last.tsv", 'a\tb\n1\tx\n2\t"y\n', [("1", "x"), OPEN]),
        # The quote is closed by that of `3\"`, two lines later; each line has all fields.
        ("twice.tsv", 'a\tb\n"1\tx\n2\ty\n3"\tz\n4\tw\n', [OPEN, ("2", "y"), ('3"', "z"), ("4", "w")]),
        ("inches.tsv", 'a\tb\n7" tablet\tx\n"Best" dog\ty\n', [('7" tablet', "x"), ('"Best" dog', "y")]),
        (
            "ragged.csv",
            "a,b\n1\n1,2,3\n4,5\n",
            ["it has 1 fields, the header 2", "it has 3 fields, the header 2", ("4", "5")],
        ),
        # A text with lines that have as many commas as a record, and quotes that are escaped by backslashes.
        ("lines.csv", 'a,b\nhttp://x/1,"Lisbon\nPorto, P\nBraga, P"\n', [("http://x/1", "Lisbon\nPorto, P\nBraga, P")]),
        ("escaped.csv", 'a,b\n1,"say \\"hi\\", Ann"\n2,y\n', [("1", 'say "hi", Ann'), ("2", "y")]),
        ("inch.csv", 'a,b\n"a 5\\" pipe",x\n', [('a 5" pipe', "x")]),
        ("wide.csv", f'a,b\n1,"{"x" * 200_000}"\n', [("1", "x" * 200_000)]),
        ("one.csv", 'a\n"two\nlines"\nx\n', [("two\nlines",), ("x",)]),
        (
            "a.jsonl",
            '{"a": 1}\n\nnull\n{"a": \n{"a": "\\ud83d"}\n',
            [(1,), "not a JSON object", "not JSON", ("\ud83d",)],
        ),
        ("deep.jsonl", "[" * 5000 + "\n" + '{"a": 1}\n', ["not JSON", (1,)]),
        ("array.json", '[{"a": 1},\n {"a": 2}, 3]', [(1,), (2,), "not a JSON object"]),
        ("empty.csv", "", []),
    ],
)
def test_records(tmp_path: Path, name: str, text: str, records: list[object]) -> None:
    if name == "deep.jsonl":  # as a range, a file that begins like an array is still lines
        found = shown(parsed(tmp_path / name, text, end=len(text)))
    else:
        found = shown(parsed(tmp_path / name, text))
    assert found == records


def test_no_header_means_no_quotes(tmp_path: Path) -> None:
    records = parsed(tmp_path / "cc3m.tsv", 'a "dog\thttp://a.example/1\n', header=("raw_caption", "url"))
    assert shown(records) == [('a "dog', "http://a.example/1")]


def test_compressed_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert shown([r for _, r in records_of(Part(str(tmp_path / "a.csv.gz"), "csv"))]) == [("1", "2")]
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 9000)[:-20])
    with pytest.raises(InputError, match="is it damaged"):
        list(records_of(Part(str(tmp_path / "b.csv.gz"), "csv")))


def test_an_encoding_is_refused_with_the_way_out(tmp_path: Path) -> None:
    text = "a,b\n" + "1,x\n" * 5000 + "2,Zürich\n"
    with pytest.raises(InputError, match=r"byte 0xfc in line 5002; .* --encoding latin-1"):
        parsed(tmp_path / "a.csv", text.encode("latin-1"))
    with pytest.raises(InputError, match="--encoding utf-16"):
        parsed(tmp_path / "b.csv", text.encode("utf-16"))
    assert shown(parsed(tmp_path / "a.csv", text.encode("latin-1"), encoding="latin-1"))[-1] == ("2", "Zürich")
    assert shown(parsed(tmp_path / "b.csv", text.encode("utf-16"), encoding="utf-16"))[-1] == ("2", "Zürich")


def test_headers_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two columns have the name 'a'"):
        parsed(tmp_path / "a.csv", "a,a\n1,2\n")
    with pytest.raises(InputError, match="the header has a quote"):
        parsed(tmp_path / "b.csv", '"a,b\n1,2\n')


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_ranges_read_each_line_once(tmp_path: Path, size: int) -> None:
    dice = random.Random(size)
    lines = [json.dumps({"a": i, "b": "é" * dice.randrange(30)}, ensure_ascii=False) for i in range(50)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines) + dice.choice(["", "\n"]))
    total = path.stat().st_size
    parts = [Part(str(path), "json", start=s, end=min(s + size, total)) for s in range(0, total, size)]
    assert [r["a"] for p in parts for _, r in records_of(p) if not isinstance(r, Malformed)] == list(range(50))


@pytest.mark.parametrize("kind", ["csv", "tsv", "json"])
def test_20_000_mutated_records(tmp_path: Path, kind: str) -> None:
    """No record stops the others: those that were not touched are read, or are next to one that was."""
    dice, rows = random.Random(0), [(str(i), f'A "fine" dog, no. {i}') for i in range(7000)]
    delimiter = {"csv": ",", "tsv": "\t"}.get(kind, "")
    lines, touched = [], set()
    for i, (number, text) in enumerate(rows):
        quoted = text.replace('"', '""')
        line = f'{number}{delimiter}"{quoted}"' if delimiter else json.dumps({"a": number, "b": text})
        if i % 10 == 0:
            touched.add(i)
            for _ in range(dice.randrange(1, 4)):
                at = dice.randrange(len(line) + 1)
                line = line[:at] + dice.choice(ODD) + line[at + dice.randrange(2) :]
        lines.append(line.replace("\n", " ").replace("\r", " "))
    found = parsed(tmp_path / f"a.{kind}", ("" if kind == "json" else f"a{delimiter}b\n") + "\n".join(lines))
    read = {r["b"] for r in found if not isinstance(r, Malformed) and isinstance(r.get("b"), str)}
    lost = {i for i, (_, text) in enumerate(rows) if text not in read} - touched
    assert not lost
