"""Compare caption strategies: the same recipe trained on the snapshots of each, scored on the same pictures and texts.

`run` is the main flow. `grid` says what is trained, `suite` on what it is scored, `score` scores one model, `bootstrap`
and `results` turn scores of pictures into intervals and differences, `page` shows them.
"""
