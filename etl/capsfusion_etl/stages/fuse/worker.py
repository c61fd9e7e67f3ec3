"""Fusion in a worker: pairs of captions through a fuser, each answer judged at once, asked again, or replaced."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import pyarrow as pa

from capsfusion_etl.budget.metered import Allowance, metered
from capsfusion_etl.engines import Answer, FuserConfig, Question, load_fuser
from capsfusion_etl.engines.concurrency import ROUND, chunks
from capsfusion_etl.judge import ACCEPTED, Judgement
from capsfusion_etl.judge.grounding import ground
from capsfusion_etl.stages.fuse.attempts import ABSTAINED, SHIFTED, Settled, settle
from capsfusion_etl.strategies import copies_caption, source_of
from capsfusion_etl.tables import FUSED_CAPTIONS
from capsfusion_etl.tables.arrow import arrow_schema, batch_of

_FOREIGN = 0.2  # share of a batch

GROUNDING_FIELDS = ("kept", "lost", "invented_numbers", "invented_names", "recall")


@dataclass(frozen=True, slots=True)
class ChosenCaption:
    """The caption to use for a pair, and where it is from: the answer if accepted, else what the policy says."""

    caption: str | None
    caption_from: str

    @classmethod
    def of(cls, settled: Settled, config: FuserConfig) -> Self:
        """Who abstains keeps the caption that says something: the synthetic one."""
        question, verdict = settled.question, settled.judgement.verdict
        if verdict == ACCEPTED:
            strategy = question.strategy
            copies = copies_caption(strategy)
            origin = source_of(strategy, question.pair_id, config.mixed_raw) if copies else "fused"
            return cls(settled.answer.text, origin)
        fallback = "synthetic" if verdict == ABSTAINED else config.fallback
        if fallback == "drop":
            return cls(None, "none")
        return cls(question.raw_caption if fallback == "raw" else question.synthetic_caption, fallback)


def as_batch(part: Sequence[Settled], config: FuserConfig, **provenance: str) -> pa.RecordBatch:
    """Rows of fused_captions."""
    questions, judgements, answers = ([getattr(s, n) for s in part] for n in ("question", "judgement", "answer"))
    groundings, kept = [j.grounding for j in judgements], [ChosenCaption.of(s, config) for s in part]
    return batch_of(
        arrow_schema(FUSED_CAPTIONS),
        len(part),
        pair_id=[q.pair_id for q in questions],
        strategy=[q.strategy for q in questions],
        caption=[k.caption for k in kept],
        caption_from=[k.caption_from for k in kept],
        verdict=[j.verdict for j in judgements],
        verdict_detail=[j.detail[:200] for j in judgements],
        answer=[a.text for a in answers],
        attempts=[s.attempts for s in part],
        ledger=[[getattr(grounding, name) for grounding in groundings] for name in GROUNDING_FIELDS],
        raw_caption=[q.raw_caption for q in questions],
        synthetic_caption=[q.synthetic_caption for q in questions],
        prompt_tokens=[a.prompt_tokens for a in answers],
        completion_tokens=[a.completion_tokens for a in answers],
        cost_usd=[a.cost_usd for a in answers],
        **provenance,
    )


def fuse_batches(
    batches: Iterator[pa.RecordBatch],
    config: FuserConfig,
    strategy: str,
    params_hash: str,
    run_id: str,
    allowance: Allowance | None,
) -> Iterator[pa.RecordBatch]:
    """mapInArrow: pair_id, raw_caption, synthetic_caption (and image) in; rows of fused_captions out."""
    provenance = {"params_hash": params_hash, "run_id": run_id}
    questions = (question for batch in batches for question in _questions(batch, strategy))
    if copies_caption(strategy):
        provenance |= {"engine": "none", "model": "none", "revision": "none"}
        settled: Iterable[Settled] = (copy(question, config) for question in questions)
    else:
        fuser = load_fuser(config)
        provenance |= {"engine": config.name, "model": fuser.model, "revision": fuser.revision}
        settled = settle(metered(fuser, allowance), questions, config)
    for part in chunks(settled, ROUND):
        yield as_batch(mark_shifted(part), config, **provenance)


def _questions(batch: pa.RecordBatch, strategy: str) -> Iterator[Question]:
    for pair_id, raw, synthetic, *image in zip(*(c.to_pylist() for c in batch.columns), strict=True):
        yield Question(pair_id, raw, synthetic, image[0] if image else None, strategy)


def fuse_all(config: FuserConfig, questions: Sequence[Question]) -> Iterator[Settled]:
    """Fuse and judge without a lake, in any order."""
    return settle(load_fuser(config), questions, config)


def copy(question: Question, config: FuserConfig) -> Settled:
    """The caption of a strategy that copies; it has a ledger like any other, and nothing to refuse."""
    origin = source_of(question.strategy, question.pair_id, config.mixed_raw)
    text = question.raw_caption if origin == "raw" else question.synthetic_caption
    grounding = ground(question.raw_caption, question.synthetic_caption, text)
    return Settled(question, Judgement(ACCEPTED, "", grounding), Answer(text), 0)


def mark_shifted(part: Sequence[Settled]) -> list[Settled]:
    """Give the verdict `shifted` to answers that belong to other rows of the batch.

    Such an answer names none of its own row's facts, and facts of another row instead. One or two are noise (the judge
    refuses them anyway); from a fifth of the batch on, a server or a collector has mixed up its answers.
    """
    foreign = [i for i, owner in enumerate(_owners(part)) if owner is not None]
    if len(foreign) < 3 or len(foreign) < _FOREIGN * len(part):
        return list(part)
    marked = list(part)
    for i in foreign:
        detail = "the answer is about another row of its batch"
        marked[i] = replace(part[i], judgement=replace(part[i].judgement, verdict=SHIFTED, detail=detail))
    return marked


def _owners(part: Sequence[Settled]) -> list[int | None]:
    """For each answer that says nothing of its own row: the row whose facts it states."""
    facts = [{*s.judgement.grounding.kept, *s.judgement.grounding.lost} for s in part]
    stated: dict[str, list[int]] = {}
    for i, own in enumerate(facts):
        for fact in own:
            stated.setdefault(fact, []).append(i)
    owners: list[int | None] = []
    for i, settled in enumerate(part):
        grounding = settled.judgement.grounding
        strange = [*grounding.invented_names, *grounding.invented_numbers]
        votes = Counter(j for fact in strange for j in stated.get(fact, ()) if j != i)
        owners.append(votes.most_common(1)[0][0] if votes and facts[i] and not grounding.kept else None)
    return owners
