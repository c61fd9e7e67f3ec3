"""Canary rows: a golden set that every run fuses first. A model that fails on these is not trusted with the rest."""

from capsfusion_etl.budget.budget import Budget
from capsfusion_etl.engines import FuserConfig, Question
from capsfusion_etl.ids import pair_id
from capsfusion_etl.judge import ACCEPTED
from capsfusion_etl.lake.run import Run
from capsfusion_etl.lake.slices import Work

# (raw caption, synthetic caption), of this project's own making; each states three names or numbers at least, of which
# some must survive.
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
    """The golden rows as questions; their ids are no pair's."""
    return [
        Question(pair_id(f"canary:{i}", raw), raw, seen, strategy=strategy) for i, (raw, seen) in enumerate(CANARIES)
    ]


def ask_canaries(run: Run, config: FuserConfig, strategy: str, work: Work, budget: Budget) -> str | None:
    """What is wrong with the golden rows; None if enough of them were fused well."""
    if not config.canaries or config.sees_image:  # they have no pictures
        return None
    rows = [(q.pair_id, q.raw_caption, q.synthetic_caption) for q in canary_questions(strategy)]
    frame = run.lake.spark.createDataFrame(rows, "pair_id string, raw_caption string, synthetic_caption string")
    out = work(frame.coalesce(1), budget.allowance("canaries", 1)).select("verdict", "answer").collect()
    budget.settle("canaries", low="z")  # no row of a table
    well = sum(row["verdict"] == ACCEPTED for row in out)
    if well >= config.canaries * len(rows):
        return None
    bad = next((row for row in out if row["verdict"] != ACCEPTED), {"verdict": "not asked", "answer": ""})
    return f"{well} of {len(rows)} golden rows were fused well; one was {bad['verdict']}: {str(bad['answer'])[:80]}"
