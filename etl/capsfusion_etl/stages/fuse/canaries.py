"""Canary rows, a golden set that every run fuses first: a model that fails on them is asked nothing else."""

from capsfusion_etl.budget.budget import Budget
from capsfusion_etl.engines import FuserConfig, Question
from capsfusion_etl.ids import pair_id
from capsfusion_etl.judge import ACCEPTED
from capsfusion_etl.lake.run import Run
from capsfusion_etl.lake.slices import Work, parallelism

# (raw caption, synthetic caption), written for this project. Each raw caption states at least three names or numbers,
# so that the judge can check how many survive.
CANARIES = (
    ("Old Harbour Bridge Lisbon 1998 postcard", "A bridge over a body of water."),
    ("Anna Keller reads at the Oslo Book Fair", "A woman reading a book to an audience."),
    ("Station clock of Zurich at 08:45, Keystone Archive", "A large clock on the wall of a building."),
    ("Lawn in Kew Gardens - July 2019", "A green lawn with trees in the background."),
    ("Red dahlia, Ghent flower market, May 2012", "A close up of a red flower."),
    ("2011 Volvo V70 D5 estate for sale in Leeds", "A silver car parked on a street."),
    ("Chess final in Turin 2006, Olsen against Moreau", "Two men sitting at a table playing chess."),
    ("Lighthouse of Skagen, Denmark, in January", "A white lighthouse on a snowy beach."),
)


def canary_questions(strategy: str) -> list[Question]:
    """Return the canary rows as questions, with ids that no pair of a lake has."""
    return [
        Question(pair_id(f"canary:{i}", raw), raw, seen, strategy=strategy) for i, (raw, seen) in enumerate(CANARIES)
    ]


def canaries_of(config: FuserConfig) -> int:
    """Return how many canary rows a strategy is asked: none if it is off, or if the fuser needs images."""
    return len(CANARIES) if config.canaries and not config.sees_image else 0


def ask_canaries(run: Run, config: FuserConfig, strategy: str, work: Work, budget: Budget) -> str | None:
    """Fuse the canary rows; return what is wrong, or None if at least the share `config.canaries` was accepted.

    Rows that the budget cannot pay for do not count.
    """
    if not canaries_of(config):
        return None
    rows = [(q.pair_id, q.raw_caption, q.synthetic_caption) for q in canary_questions(strategy)]
    frame = run.lake.spark.createDataFrame(rows, "pair_id string, raw_caption string, synthetic_caption string")
    # In parallel, because every worker loads its model now, and the first slice finds it loaded.
    tasks = min(parallelism(run), len(rows))
    asked = work(frame.repartition(tasks), budget.allowance("canaries", tasks))
    out = asked.select("verdict", "verdict_detail", "answer").collect()
    budget.settle("canaries", low="z")  # canary rows are in no table: no pair_id sorts after z
    well = sum(row["verdict"] == ACCEPTED for row in out)
    if well >= config.canaries * len(out):
        return None
    bad = next(row for row in out if row["verdict"] != ACCEPTED)
    said = bad["answer"] or bad["verdict_detail"]
    return f"{well} of {len(out)} canary rows were fused well; one was {bad['verdict']}: {str(said)[:80]}"
