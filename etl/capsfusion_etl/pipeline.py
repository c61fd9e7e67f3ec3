"""The main job, start to end: a list that you can read."""

from dataclasses import dataclass
from typing import Self

from capsfusion_etl.budget.budget import BudgetConfig
from capsfusion_etl.console import say
from capsfusion_etl.engines import CaptionerConfig, FuserConfig, captioner_hash, fuser_hash, needs_images
from capsfusion_etl.errors import InputError
from capsfusion_etl.lake.run import Run
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
from capsfusion_etl.stages.ingest.sources import SourceConfig
from capsfusion_etl.stages.ingest.stage import ingest
from capsfusion_etl.stages.publish import Gate, PublishConfig, gated


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """The validated settings of every stage of this package."""

    source: SourceConfig
    fetch: FetchConfig
    filters: FilterConfig
    dedup: DedupConfig
    captioner: CaptionerConfig
    fuser: FuserConfig
    publish: PublishConfig
    budget: BudgetConfig

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Validate the sections of this package.

        Raises:
            InputError: an unknown key, a wrong type, or an engine that there is not.
        """
        plan = cls(
            source=section(settings, "source", SourceConfig),
            fetch=section(settings, "fetch", FetchConfig),
            filters=section(settings, "filters", FilterConfig),
            dedup=section(settings, "dedup", DedupConfig),
            captioner=section(settings, "captioner", CaptionerConfig),
            fuser=section(settings, "fuser", FuserConfig),
            publish=section(settings, "publish", PublishConfig),
            budget=section(settings, "budget", BudgetConfig),
        )
        if plan.fetch.enabled is False and needs_images(plan.captioner):
            raise InputError(f"captioner {plan.captioner.name} looks at pictures: do not set fetch.enabled to false")
        if plan.publish.strategy not in plan.fuser.strategies:
            raise InputError(f"publish.strategy: {plan.publish.strategy!r} is none of fuser.strategies")
        if plan.fuser.sees_image and not plan.with_images:
            raise InputError("fuser.sees_image: there are no pictures: --set fetch.enabled=true")
        _ = plan.params_hash  # an engine or a prompt that is not there shows here, not after an hour
        return plan

    @property
    def with_images(self) -> bool:
        """Are pictures fetched?"""
        return needs_images(self.captioner) if self.fetch.enabled is None else self.fetch.enabled

    @property
    def captioner_params_hash(self) -> str:
        """params_hash of the synthetic captions."""
        return captioner_hash(self.captioner)

    @property
    def params_hash(self) -> str:
        """params_hash of the captions that are published."""
        return fuser_hash(self.fuser, self.captioner_params_hash, self.publish.strategy)


def run_pipeline(run: Run, plan: PipelineConfig, gate: Gate) -> Manifest:
    """From source rows to a gated snapshot. What an earlier run settled is not done, or paid for, again.

    Raises:
        GateRefusedError: the tables are there, the snapshot is not.
    """
    ingest(run, plan.source, plan.fetch)
    if plan.with_images:
        fetch(run, plan.fetch)
    else:
        say("fetch     skipped: captioner column needs no pictures (--set fetch.enabled=true fetches them anyway)")
    filter_pairs(run, plan.filters)
    dedup(run, plan.dedup)
    caption(run, plan.captioner, plan.budget)
    fuse(run, plan.fuser, plan.budget, captioner_params_hash=plan.captioner_params_hash)
    return gated(run, plan.params_hash, plan.publish, gate)
