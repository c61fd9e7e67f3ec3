"""Checks that were thought of after the results of `day`; they decide no hypothesis (docs/claim.md, "Checks").

    python examples/claim/afterwards.py FOLDER SIZE

`prompts` asks the models of the largest scale for names behind other prompts than the registered one. `unread` trains
frozen models again whose language model never read the texts of the oracle, which tell every name. `blind` is the
entity recall of the most frequent name, said of every picture.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
from capsfusion_trainer.compare.grid import Grid
from capsfusion_trainer.compare.run import compare, newest
from capsfusion_trainer.compare.score import SEEN, Score, score
from capsfusion_trainer.compare.store import scores_of
from capsfusion_trainer.compare.suite import Suite, read_suite
from capsfusion_trainer.evaluation.clozes import read_clozes
from capsfusion_trainer.training.distributed import init_distributed
from capsfusion_trainer.training.export import load
from material import SEED
from models import frozen_and_fired, language_model
from sizes import STUDIES, Study
from world import individuals, scenes

PROMPTS = {"beginning": "", "titled": "A picture titled"}  # where a text of raw or the oracle, and of fused, has names
UNREAD = Grid(["fused", "synthetic"], [4_096, 16_384], [0, 1, 2])


def blind(study: Study) -> float:
    """Return the share of test pictures that show the most frequent individual."""
    who = individuals()
    found = list(scenes(who, study.test, f"{SEED} test"))
    return sum(scene.who == who[0] for scene in found) / len(found)


def prompts(study: Study, folder: Path) -> pd.DataFrame:
    """Return the mean accuracy from the picture behind each prompt, over seeds, of the models that are here."""
    test = folder / "test"
    clozes = read_clozes(test / "names.jsonl")
    asked = {name: [replace(cloze, prompt=prompt) for cloze in clozes] for name, prompt in PROMPTS.items()}
    suite = Suite(test / "pictures", {}, asked, {}, beams=1)
    rows = [
        (how, strategy, found.benchmark, found.value)
        for how in ("frozen", "fired")
        for strategy in (*study.strategies, "oracle")
        for found in _answers(folder / how, strategy, study, suite)
    ]
    if not rows:
        raise SystemExit("the models were trained elsewhere: delete examples/claim/made/*/models_* to train them here")
    answers = pd.DataFrame(rows, columns=["llm", "strategy", "prompt", SEEN])
    return answers.pivot_table(SEEN, ["llm", "strategy"], "prompt", sort=False)


def _answers(models: Path, strategy: str, study: Study, suite: Suite) -> Iterator[Score]:
    """Yield what the models of all seeds answer; those that were trained elsewhere are not here."""
    for seed in study.seeds:
        model = models / f"{strategy}-{study.scales[-1]}-{seed}" / "model"
        if model.is_dir():
            with init_distributed(60) as world:
                found, _ = score(load(model, world.device), suite, world)
            yield from (answer for answer in found if answer.metric == SEEN)


def unread(study: Study, folder: Path) -> pd.DataFrame:
    """Return scores of frozen models whose language model read the oracle's texts, and of those of one that did not."""
    lake, test, mine = folder / "lake", folder / "test", folder / "unread"
    mine.mkdir(exist_ok=True)
    llm = language_model(study, [newest(str(lake), strategy) for strategy in study.strategies], mine)
    config = replace(frozen_and_fired(mine, llm)["frozen"], feature_cache=str(folder / "features"))
    suite = read_suite(test / "pictures", [test / "naming.json"], [test / "names.jsonl"], [], beams=1)
    compare(str(lake), UNREAD, config, mine / "frozen", suite)
    cells = {cell for run in UNREAD.runs() for cell in run.cells}
    rows = [
        (read, cell.strategy, cell.pairs, f"{s.benchmark} {s.metric}", s.value)
        for read, of in (("read", folder), ("unread", mine))
        for cell, found in scores_of(of / "frozen").items()
        if cell in cells
        for s in found
        if s.metric in ("CIDEr-D", "entity recall", SEEN) and s.benchmark in ("naming", "names")
    ]
    scores = pd.DataFrame(rows, columns=["oracle", "strategy", "pairs", "metric", "value"])
    return scores.pivot_table("value", ["strategy", "pairs", "oracle"], "metric", sort=False)


if __name__ == "__main__":
    chosen, place = STUDIES[sys.argv[2]], Path(sys.argv[1]) / sys.argv[2]
    print(f"blind: {blind(chosen):.3f}")
    print(unread(chosen, place).round(3).to_string(), flush=True)
    print(prompts(chosen, place).round(3).to_string())
