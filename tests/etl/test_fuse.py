from collections.abc import Sequence

from capsfusion_etl.attempts import settle
from capsfusion_etl.engines import Answer, CaptionerConfig, FuserConfig, Question, captioner_hash, fuser_hash
from capsfusion_etl.fuse import as_row

GOOD = "A 1998 postcard of the Old Harbour Bridge in Lisbon."
BAD = "A 1999 postcard of the Old Harbour Bridge in Lisbon."


class Scripted:
    """Answers from a list for each pair: one entry an attempt."""

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
    rows = {policy: as_row(refused, FuserConfig(fallback=policy)) for policy in ("synthetic", "raw", "drop")}
    assert {p: (r["caption"], r["caption_from"]) for p, r in rows.items()} == {
        "synthetic": ("A bridge over water.", "synthetic"),
        "raw": ("Old Harbour Bridge Lisbon 1998 postcard", "raw"),
        "drop": (None, "none"),
    }
    assert rows["raw"]["verdict"] == "invented_number"
    assert rows["raw"]["answer"] == BAD


def test_hashes_follow_what_makes_the_answers() -> None:
    column, classifier = (captioner_hash(CaptionerConfig(name=n)) for n in ("column", "classifier"))
    base = fuser_hash(FuserConfig(), column)
    assert fuser_hash(FuserConfig(batch_size=7), column) == base
    assert fuser_hash(FuserConfig(max_new_tokens=7), column) != base
    assert fuser_hash(FuserConfig(prompt="paper-v1"), column) != base
    assert fuser_hash(FuserConfig(), classifier) != base
