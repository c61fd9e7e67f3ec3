"""The judge: row-by-row verdicts on fused captions. Pure: no Spark, no model, no I/O but its own word lists.

`checks` lists the checks. `grounding` compares the facts of a caption with its two sources, `support` its words,
`binding` what its numbers belong to; `sentence` finds broken sentences. `spelling` matches other spellings of a name or
number, `lexicon` knows English words, `scripts` the words and sentence ends of every script. `abstain` decides when not
to fuse at all.
"""

from capsfusion_etl.judge.checks import ACCEPTED, BOILERPLATE, CHECKS, Check, Judgement, Limits, Row, judge, normalize

__all__ = ["ACCEPTED", "BOILERPLATE", "CHECKS", "Check", "Judgement", "Limits", "Row", "judge", "normalize"]
