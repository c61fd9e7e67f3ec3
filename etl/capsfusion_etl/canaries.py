"""Canary rows: a golden set that every run fuses first. A model that fails on these is not trusted with the rest."""

from capsfusion_etl.engines import Question
from capsfusion_etl.ids import pair_id

# (raw caption, synthetic caption), of this project's own making; each states three names or numbers at least, of which
# some must survive.
GOLDEN = (
    ("Old Harbour Bridge Lisbon 1998 postcard", "A bridge over a body of water."),
    ("Anna Keller reads at the Oslo Book Fair", "A woman reading a book to an audience."),
    ("Station clock of Zurich at 08:45, Keystone Archive", "A large clock on the wall of a building."),
    ("Lawn in Kew Gardens - July 2019", "A green lawn with trees in the background."),
    ("Red dahlia, Ghent flower market, May 2012", "A close up of a red flower."),
    ("2011 Volvo V70 D5 estate for sale in Leeds", "A silver car parked on a street."),
    ("Chess final in Turin 2006, Olsen against Moreau", "Two men sitting at a table playing chess."),
    ("Lighthouse of Skagen, Denmark, in January", "A white lighthouse on a snowy beach."),
)


def questions(strategy: str) -> list[Question]:
    """The golden rows as questions; their ids are no pair's."""
    return [Question(pair_id(f"canary:{i}", raw), raw, seen, strategy=strategy) for i, (raw, seen) in enumerate(GOLDEN)]
