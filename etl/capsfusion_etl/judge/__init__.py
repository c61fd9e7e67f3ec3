"""The judge: row-by-row verdicts on fused captions. Pure: no Spark, no model, no I/O but its own word lists.

`checks` lists the checks, `limits` their thresholds. `grounding` compares the facts of a caption with its two sources,
`support` its words, `binding` what its numbers belong to; `sentence` finds broken sentences, `copying` measures how a
caption joins its sources. `spelling` matches other spellings of a name or number, `lexicon` knows English words,
`scripts` the words and sentence ends of every script. `abstain` decides when not to fuse at all. `opinion` reads the
verdicts of a large model, asked for a second opinion.
"""

from capsfusion_etl.judge.checks import (
    ACCEPTED,
    BOILERPLATE,
    CHECKS,
    Check,
    Judgement,
    Row,
    fault_of_synthetic,
    judge,
)
from capsfusion_etl.judge.limits import Limits
from capsfusion_etl.judge.scripts import normalize

__all__ = [
    "ACCEPTED",
    "BOILERPLATE",
    "CHECKS",
    "Check",
    "Judgement",
    "Limits",
    "Row",
    "fault_of_synthetic",
    "judge",
    "normalize",
]
