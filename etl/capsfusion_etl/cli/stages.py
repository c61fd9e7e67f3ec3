"""Commands that run one stage each: `capsfusion ingest`, `fetch`, `filter` and so on, up to `report`."""

from typing import TYPE_CHECKING, Annotated

import typer

from capsfusion_etl.cli.context import gate_step, open_run, report_step
from capsfusion_etl.cli.options import (
    CaptionerOption,
    ColumnOption,
    ConfigOption,
    EncodingOption,
    ExplodeOption,
    FuserOption,
    LakeOption,
    LayoutOption,
    LimitOption,
    MaxRowsOption,
    MaxTokensOption,
    MaxUsdOption,
    PairsOption,
    SetOption,
    caps_of,
    names_in,
    one_of,
    settings_of,
    source_of,
)
from capsfusion_etl.errors import GateRefusedError, InputError

if TYPE_CHECKING:
    from capsfusion_etl.lake.run import Run
    from capsfusion_etl.pipeline import PipelineConfig
    from capsfusion_etl.settings import Settings

app = typer.Typer()


def _open(lake: str, settings: "Settings") -> "tuple[Run, PipelineConfig]":
    from capsfusion_etl.pipeline import PipelineConfig

    pipeline = PipelineConfig.of(settings)  # before Spark, whose start takes ten seconds
    return open_run(lake, settings), pipeline


@app.command()
def ingest(
    lake: LakeOption,
    pairs: PairsOption = None,
    layout: LayoutOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    column: ColumnOption = None,
    explode: ExplodeOption = None,
    encoding: EncodingOption = None,
    limit: LimitOption = None,
) -> None:
    """Read pairs from a source into the lake."""
    from capsfusion_etl.stages.ingest.stage import ingest as stage

    options = source_of(pairs, layout, column, explode, encoding, limit)
    current, pipeline = _open(lake, settings_of(lake, config, sets, options))
    stage(current, pipeline.source, pipeline.fetch)


@app.command()
def fetch(
    lake: LakeOption,
    config: ConfigOption = None,
    sets: SetOption = None,
    retry: Annotated[
        str | None, typer.Option(help="Failures to retry, separated by commas: timeout, unreachable, 5xx, 429...")
    ] = None,
) -> None:
    """Download the images."""
    from capsfusion_etl.stages.fetch.stage import failures
    from capsfusion_etl.stages.fetch.stage import fetch as stage

    kinds = names_in(retry)
    failures(kinds)  # rejects a misspelt one before Spark starts
    current, pipeline = _open(lake, settings_of(lake, config, sets))
    stage(current, pipeline.fetch, kinds)


@app.command("filter")
def filter_(
    lake: LakeOption,
    config: ConfigOption = None,
    sets: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show how many pairs each filter would reject, with examples.")
    ] = False,
) -> None:
    """Reject pairs that are unfit for training."""
    from capsfusion_etl.pipeline import PipelineConfig
    from capsfusion_etl.stages.filters.stage import filter_pairs as stage

    if dry_run:
        from capsfusion_etl.stages.filters.majority import most_of
        from capsfusion_etl.stages.filters.stage import census

        settings = settings_of(lake, config, sets)
        wanted = PipelineConfig.of(settings).filters
        print(f"{'filter':16s} {'rejects':>10s} {'as first':>10s}")
        rows, found = census(open_run(lake, settings, create=False, keep=False), wanted)
        for name, alone, first, examples in found:
            print(f"{name:16s} {alone:10,d} {first if first >= 0 else '':>10}", *examples, sep="\n    ")
        if told := most_of(rows, {name: alone for name, alone, _, _ in found}, wanted):
            print(told)
        return
    current, pipeline = _open(lake, settings_of(lake, config, sets))
    stage(current, pipeline.filters)


@app.command()
def dedup(lake: LakeOption, config: ConfigOption = None, sets: SetOption = None) -> None:
    """Reject exact and near duplicates."""
    from capsfusion_etl.stages.dedup.stage import dedup as stage

    current, pipeline = _open(lake, settings_of(lake, config, sets))
    stage(current, pipeline.dedup)


@app.command()
def caption(
    lake: LakeOption,
    config: ConfigOption = None,
    sets: SetOption = None,
    captioner: CaptionerOption = None,
    max_usd: MaxUsdOption = None,
    max_tokens: MaxTokensOption = None,
    max_rows: MaxRowsOption = None,
    retry: Annotated[
        str | None, typer.Option(help="Reasons to ask for again, separated by commas: engine_error, bad_caption...")
    ] = None,
) -> None:
    """Write synthetic captions."""
    from capsfusion_etl.stages.caption.stage import caption as stage
    from capsfusion_etl.tables import REJECT_REASONS

    again = one_of("--retry", retry, REJECT_REASONS["caption"])
    options = {"captioner.name": captioner, **caps_of(max_usd, max_tokens, max_rows)}
    current, pipeline = _open(lake, settings_of(lake, config, sets, options))
    stage(current, pipeline.captioner, pipeline.budget, again)


@app.command()
def fuse(
    lake: LakeOption,
    config: ConfigOption = None,
    sets: SetOption = None,
    fuser: FuserOption = None,
    max_usd: MaxUsdOption = None,
    max_tokens: MaxTokensOption = None,
    max_rows: MaxRowsOption = None,
    retry: Annotated[
        str | None, typer.Option(help="Verdicts to ask for again, separated by commas: engine_error, cut_off...")
    ] = None,
) -> None:
    """Fuse raw and synthetic captions and judge the results."""
    from capsfusion_etl.stages.fuse.stage import VERDICTS
    from capsfusion_etl.stages.fuse.stage import fuse as stage

    again = one_of("--retry", retry, VERDICTS)
    options = {"fuser.name": fuser, **caps_of(max_usd, max_tokens, max_rows)}
    current, pipeline = _open(lake, settings_of(lake, config, sets, options))
    stage(current, pipeline.fuser, pipeline.budget, captioner_params_hash=pipeline.captioner_params_hash, retry=again)


@app.command()
def opinion(
    lake: LakeOption,
    config: ConfigOption = None,
    sets: SetOption = None,
    max_usd: MaxUsdOption = None,
    max_tokens: MaxTokensOption = None,
    max_rows: MaxRowsOption = None,
) -> None:
    """Ask a large model about a share of the accepted captions (judge.second_opinion)."""
    from capsfusion_etl.pipeline import PipelineConfig
    from capsfusion_etl.stages.opinion.stage import ask_opinions as stage

    settings = settings_of(lake, config, sets, caps_of(max_usd, max_tokens, max_rows))
    pipeline = PipelineConfig.of(settings)
    if pipeline.judge.second_opinion is None:
        raise InputError("judge.second_opinion: not set; for example --set judge.second_opinion.engine=openai")
    current = open_run(lake, settings)
    stage(current, pipeline.judge.second_opinion, pipeline.budget, caption_params_hash=pipeline.params_hash)


@app.command()
def validate(lake: LakeOption, config: ConfigOption = None, sets: SetOption = None) -> None:
    """Run the quality gate. Exit status 1 if it refuses."""
    from capsfusion_etl.stages.publish import validate as stage

    settings = settings_of(lake, config, sets)
    gate = gate_step(settings)
    current, pipeline = _open(lake, settings)
    result = stage(current, pipeline.params_hash, pipeline.publish, gate)
    print(result.report)
    if not result.passed:
        raise GateRefusedError(
            f"{len(result.failures)} of {result.expectations} expectations fail: see {result.report}"
        )


@app.command()
def publish(
    lake: LakeOption,
    name: Annotated[str | None, typer.Argument(help="Name of the snapshot; by default s0001, s0002...")] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
) -> None:
    """Publish a snapshot if the quality gate passes."""
    from capsfusion_etl.stages.publish import gated

    settings = settings_of(lake, config, sets, {"publish.name": name})
    gate = gate_step(settings)
    current, pipeline = _open(lake, settings)
    print(gated(current, pipeline.params_hash, pipeline.publish, gate).name)


@app.command()
def report(lake: LakeOption, config: ConfigOption = None, sets: SetOption = None) -> None:
    """Write report.html: funnel, verdicts, examples, gate result, training."""
    from capsfusion_etl.lake.lock import one_writer
    from capsfusion_etl.pipeline import PipelineConfig

    settings = settings_of(lake, config, sets)
    pipeline = PipelineConfig.of(settings)
    one_writer(lake)  # a takedown that ends meanwhile must not find its rows in the report
    print(report_step()(open_run(lake, settings, create=False, keep=False), pipeline.params_hash))
