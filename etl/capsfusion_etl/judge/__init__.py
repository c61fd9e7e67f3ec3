"""The judge: row-by-row verdicts on fused captions. Pure: no Spark, no I/O, no model.

`checks` lists the checks, `grounding` compares a caption with its two sources, `spelling` matches other spellings of a
name or number, `scripts` knows the words and sentence ends of every script, `abstain` decides when not to fuse at all.
"""

from capsfusion_etl.judge.checks import ACCEPTED, BOILERPLATE, CHECKS, Check, Judgement, Limits, Row, judge, normalize

__all__ = ["ACCEPTED", "BOILERPLATE", "CHECKS", "Check", "Judgement", "Limits", "Row", "judge", "normalize"]
