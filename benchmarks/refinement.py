"""Score the fuser `embedded` on triplets that its adapter was not trained on, beside their own third column.

The rows are the held-out ones (by the hash of the pair_id, as in `capsfusion refine`). The fuser runs with its defaults
(one retry); its answers are judged and scored as `capsfusion score` does: all answers, then the accepted ones alone.

    python benchmarks/refinement.py --triplets triplets.parquet --rows 300
"""

import argparse
import json
import time
from dataclasses import replace

from capsfusion_etl.engines import FuserConfig, Question
from capsfusion_etl.judge import ACCEPTED
from capsfusion_etl.stages.fuse.worker import fuse_all
from capsfusion_trainer.refine.config import smollm2_135m_cpu
from capsfusion_trainer.refine.score import Scorecard, score
from capsfusion_trainer.refine.triplets import is_held_out, read_triplets

SHOWN = ("instruction_echo", "cut_off", "concatenation", "invented_number", "invented_name", "residue", "fragment")


def line(name: str, card: Scorecard) -> None:
    """Print a scorecard."""
    shares = "  ".join(f"{check} {card.shares[check]:.2%}" for check in SHOWN)
    print(f"{name} ({card.rows} rows): accepted {card.accepted:.1%}, recall {card.recall or 0:.3f}\n    {shares}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triplets", required=True)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--set", dest="sets", type=json.loads, default={}, help='settings as JSON, {"keep_facts": 2}')
    options = parser.parse_args()
    held_out = [t for t in read_triplets(options.triplets) if is_held_out(t, smollm2_135m_cpu().held_out)]
    rows = {t.pair_id: t for t in sorted(held_out, key=lambda t: t.pair_id)[: options.rows]}
    config = FuserConfig(**{"name": "embedded", "abstain": False} | options.sets)
    questions = [Question(t.pair_id, t.raw_caption, t.synthetic_caption) for t in rows.values()]
    list(fuse_all(config, questions[:4]))  # load the model before timing
    started = time.perf_counter()
    settled = list(fuse_all(config, questions))
    seconds = time.perf_counter() - started
    made = [replace(rows[s.question.pair_id], fused_caption=s.answer.text or "") for s in settled]
    accepted = [m for m, s in zip(made, settled, strict=True) if s.judgement.verdict == ACCEPTED]
    print(f"{len(accepted) / len(made):.1%} accepted, {len(made) / seconds:.2f} rows/s")
    line("embedded, all answers", score(made))
    line("embedded, accepted", score(accepted))
    line("the third column", score(rows.values()))


if __name__ == "__main__":
    main()
