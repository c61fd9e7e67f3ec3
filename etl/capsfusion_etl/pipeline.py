"""The main job: every stage of this package in order, from source rows to a gated snapshot."""

from dataclasses import dataclass
from typing import Self

from capsfusion_etl.budget.budget import BudgetConfig
from capsfusion_etl.console import say
from capsfusion_etl.engines import (
    CaptionerConfig,
    FuserConfig,
    JudgeConfig,
    captioner_hash,
    fuser_hash,
    needs_images,
)
from capsfusion_etl.engines.forms import OPINION, form_of
from capsfusion_etl.errors import InputError
from capsfusion_etl.lake.run import Run
from capsfusion_etl.prompts import load_template
from capsfusion_etl.settings import Settings, section
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.stages.caption.stage import caption
from capsfusion_etl.stages.dedup.sketches import DedupConfig
from capsfusion_etl.stages.dedup.stage import dedup
from capsfusion_etl.stages.fetch.config import FetchConfig
from capsfusion_etl.stages.fetch.stage import fetch
from capsfusion_etl.stages.filters.rules import FilterConfig
from capsfusion_etl.stages.filters.stage import filter_pairs
from capsfusion_etl.stages.fuse.stage import fuse
from capsfusion_etl.stages.ingest.config import SourceConfig
from capsfusion_etl.stages.ingest.stage import ingest
from capsfusion_etl.stages.opinion.stage import ask_opinions
from capsfusion_etl.stages.publish import Gate, PublishConfig, gated


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """Validated settings of every stage of this package."""

    source: SourceConfig
    fetch: FetchConfig
    filters: FilterConfig
    dedup: DedupConfig
    captioner: CaptionerConfig
    fuser: FuserConfig
    judge: JudgeConfig
    publish: PublishConfig
    budget: BudgetConfig

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Validate the sections of this package.

        Raises:
            InputError: an unknown key, a wrong type, an unknown engine or prompt, or sections that contradict each
                other.
        """
        pipeline = cls(
            source=section(settings, "source", SourceConfig),
            fetch=section(settings, "fetch", FetchConfig),
            filters=section(settings, "filters", FilterConfig),
            dedup=section(settings, "dedup", DedupConfig),
            captioner=section(settings, "captioner", CaptionerConfig),
            fuser=section(settings, "fuser", FuserConfig),
            judge=section(settings, "judge", JudgeConfig),
            publish=section(settings, "publish", PublishConfig),
            budget=section(settings, "budget", BudgetConfig),
        )
        if pipeline.fetch.enabled is False and needs_images(pipeline.captioner):
            raise InputError(
                f"fetch.enabled: captioner {pipeline.captioner.maker.name} needs images; do not set it to false"
            )
        if pipeline.publish.strategy not in pipeline.fuser.strategies:
            raise InputError(
                f"publish.strategy: {pipeline.publish.strategy!r} is not in fuser.strategies; add it there"
            )
        if pipeline.fuser.sees_image and not pipeline.with_images:
            raise InputError("fuser.sees_image: no images are fetched; set fetch.enabled=true")
        opinion = pipeline.judge.second_opinion
        if opinion is not None and form_of(load_template(opinion.rubric)) is not OPINION:
            raise InputError(f"judge.second_opinion.rubric: {opinion.rubric} has no slot for the fused caption")
        _ = pipeline.params_hash  # an unknown engine or prompt fails now, not after an hour
        return pipeline

    @property
    def with_images(self) -> bool:
        """Whether images are fetched."""
        return needs_images(self.captioner) if self.fetch.enabled is None else self.fetch.enabled

    @property
    def captioner_params_hash(self) -> str:
        """params_hash of the synthetic captions."""
        return captioner_hash(self.captioner)

    @property
    def params_hash(self) -> str:
        """params_hash of the captions that are published."""
        return fuser_hash(self.fuser, self.captioner_params_hash, self.publish.strategy)


def run_pipeline(run: Run, pipeline: PipelineConfig, gate: Gate) -> Manifest:
    """Run every stage from source rows to a gated snapshot. Rows that an earlier run settled are not paid for again.

    Returns:
        The manifest of the published snapshot.

    Raises:
        GateRefusedError: the gate refused; the tables are written, but there is no new snapshot.
    """
    _ = run.lake.spark  # start Spark before the functions of its SQL are used
    ingest(run, pipeline.source, pipeline.fetch)
    if pipeline.with_images:
        fetch(run, pipeline.fetch)
    else:
        say("fetch     skipped: captioner column needs no pictures (--set fetch.enabled=true fetches them anyway)")
    filter_pairs(run, pipeline.filters)
    dedup(run, pipeline.dedup)
    caption(run, pipeline.captioner, pipeline.budget)
    fuse(run, pipeline.fuser, pipeline.budget, captioner_params_hash=pipeline.captioner_params_hash)
    if pipeline.judge.second_opinion is not None:
        ask_opinions(run, pipeline.judge.second_opinion, pipeline.budget, caption_params_hash=pipeline.params_hash)
    return gated(run, pipeline.params_hash, pipeline.publish, gate)
