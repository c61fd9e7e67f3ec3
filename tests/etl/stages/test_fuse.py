"""Test attempts, fallbacks, hashes and custom engines of the fuse stage, without Spark."""

from collections.abc import Sequence

import pytest
from capsfusion_etl.engines import (
    Answer,
    CaptionerConfig,
    FuserConfig,
    Question,
    captioner_hash,
    fuser_hash,
    load_fuser,
)
from capsfusion_etl.errors import InputError
from capsfusion_etl.stages.fuse.attempts import settle
from capsfusion_etl.stages.fuse.worker import as_batch

GOOD = "A 1998 postcard of the Old Harbour Bridge in Lisbon."
BAD = "A 1999 postcard of the Old Harbour Bridge in Lisbon."


class Scripted:
    """An engine that answers from a list for each pair, one entry for each attempt."""

    model, revision = "scripted", "1"

    def __init__(self, **answers: list[str | None]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def fuse(self, questions: Sequence[Question]) -> list[Answer]:
        self.asked += [q.pair_id for q in questions]
        texts = [self.answers[q.pair_id][q.attempt] for q in questions]
        return [Answer(t, None if t else "broke", prompt_tokens=10, completion_tokens=5, cost_usd=0.1) for t in texts]


def question(pair_id: str) -> Question:
    return Question(pair_id, "Old Harbour Bridge Lisbon 1998 postcard", "A bridge over water.")


def test_only_refused_rows_are_asked_again_and_attempts_add_up() -> None:
    fuser = Scripted(a=[GOOD], b=[BAD, GOOD], c=[None, None])
    a, b, c = settle(fuser, [question(p) for p in "abc"], FuserConfig(retries=1))
    assert fuser.asked == ["a", "b", "c", "b", "c"]
    assert [s.judgement.verdict for s in (a, b, c)] == ["accepted", "accepted", "engine_error"]
    assert [s.attempts for s in (a, b, c)] == [1, 2, 2]
    assert (b.answer.prompt_tokens, b.answer.completion_tokens, round(b.answer.cost_usd, 6)) == (20, 10, 0.2)


def test_the_policy_replaces_what_was_refused() -> None:
    [refused] = settle(Scripted(a=[BAD]), [question("a")], FuserConfig(retries=0))
    provenance = {"engine": "scripted", "model": "m", "revision": "1", "params_hash": "p", "run_id": "r"}
    policies = ("synthetic", "raw", "drop")
    batches = {policy: as_batch([refused], FuserConfig(fallback=policy), **provenance) for policy in policies}
    rows = {policy: batch.to_pylist()[0] for policy, batch in batches.items()}
    assert {p: (r["caption"], r["caption_from"]) for p, r in rows.items()} == {
        "synthetic": ("A bridge over water.", "synthetic"),
        "raw": ("Old Harbour Bridge Lisbon 1998 postcard", "raw"),
        "drop": (None, "none"),
    }
    assert rows["raw"]["verdict"] == "invented_number"
    assert rows["raw"]["answer"] == BAD
    assert rows["raw"]["ledger"]["invented_numbers"] == ["1999"]
    assert rows["raw"]["ledger"]["recall"] == 0.75
    assert rows["raw"]["params_hash"] == "p"


def test_hashes_follow_what_makes_the_answers() -> None:
    column, classifier = (captioner_hash(CaptionerConfig(name=n)) for n in ("column", "classifier"))
    base = fuser_hash(FuserConfig(), column)
    assert fuser_hash(FuserConfig(batch_size=7), column) == base
    assert fuser_hash(FuserConfig(max_new_tokens=7), column) != base
    assert fuser_hash(FuserConfig(prompt="paper-v1"), column) != base
    assert fuser_hash(FuserConfig(), classifier) != base


def test_an_engine_of_your_own_is_named_by_its_class() -> None:
    mine = FuserConfig(name="copy:copy")  # any callable that accepts the settings
    assert load_fuser(mine) == mine
    assert fuser_hash(mine, "x") != fuser_hash(FuserConfig(), "x")
    for name in ("fractions:NoSuchFuser", "no_such_module:Fuser"):
        with pytest.raises(InputError, match=f"there is no engine {name}"):
            load_fuser(FuserConfig(name=name))
    with pytest.raises(InputError, match=r"there is no engine 'mine'; there are embedded, .* or your own module:Class"):
        load_fuser(FuserConfig(name="mine"))
