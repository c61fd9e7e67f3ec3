"""The judge: verdicts on fused captions, row by row. Pure: no Spark, no I/O, no model.

`checks` is the list of checks, `grounding` compares a caption with its two sources, `spelling` knows other spellings of
a name or number, `abstain` tells when not to fuse at all.
"""

from capsfusion_etl.judge.checks import ACCEPTED, BOILERPLATE, CHECKS, Check, Judgement, Limits, Row, judge, normalize

__all__ = ["ACCEPTED", "BOILERPLATE", "CHECKS", "Check", "Judgement", "Limits", "Row", "judge", "normalize"]
