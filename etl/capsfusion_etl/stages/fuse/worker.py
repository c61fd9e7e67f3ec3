"""Fuse stage, executor side: fuse Arrow batches, judge each answer, and retry or replace those not accepted."""

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

GROUNDING_FIELDS = ("kept", "lost", "invented_numbers", "invented_names", "recall")
_FOREIGN = 0.2  # share of a chunk from which its answers count as mixed up


@dataclass(frozen=True, slots=True)
class ChosenCaption:
    """The caption to use for a pair, and its origin: the answer if accepted, else the fallback."""

    caption: str | None
    caption_from: str

    @classmethod
    def of(cls, settled: Settled, config: FuserConfig) -> Self:
        """Choose the caption; an abstained pair keeps the synthetic one, as its raw caption says nothing."""
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
    """Return rows of `fused_captions`.

    Args:
        provenance: values of the columns params_hash, run_id, engine, model and revision.
    """
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
        ledger=[
            *([getattr(g, name) for g in groundings] for name in GROUNDING_FIELDS),
            [j.support.all_unsupported for j in judgements],
            [j.support.embellished for j in judgements],
        ],
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
    """Fuse Arrow batches (for `mapInArrow`).

    Args:
        batches: columns pair_id, raw_caption, synthetic_caption and optionally image, in this order.
        allowance: what this task may spend, or None for an engine that is not paid by the request.

    Returns:
        Rows of `fused_captions`. Rows that the allowance cannot pay for are missing.
    """
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
    """Fuse and judge without a lake; results come in any order."""
    return settle(load_fuser(config), questions, config)


def copy(question: Question, config: FuserConfig) -> Settled:
    """Settle a question of a strategy that copies a caption: always accepted, with its grounding."""
    origin = source_of(question.strategy, question.pair_id, config.mixed_raw)
    text = question.raw_caption if origin == "raw" else question.synthetic_caption
    grounding = ground(question.raw_caption, question.synthetic_caption, text)
    return Settled(question, Judgement(ACCEPTED, "", grounding), Answer(text), 0)


def mark_shifted(part: Sequence[Settled]) -> list[Settled]:
    """Give the verdict `shifted` to answers that belong to other rows of their batch (`part`).

    Such an answer states no fact of its own row, but facts of another row. One or two of them are noise, which the
    judge rejects anyway. If there are at least three, and at least a fifth of the batch, a server or a collector has
    mixed up its answers.
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
    """Return for each answer the index of the row whose facts it states instead of its own, or None."""
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
