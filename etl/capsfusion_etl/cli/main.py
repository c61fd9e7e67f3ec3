"""The `capsfusion` command: one sub-command for each stage, and `run` for all of them.

Other packages add theirs through the entry point group capsfusion.commands. Heavy modules are imported only in the
commands that need them, so that `--help` answers in under a second.
"""

import logging
import signal
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from capsfusion_etl.cli.context import gate_step, open_run, report_step, training_steps
from capsfusion_etl.cli.exports import app as exports
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
    NameOption,
    PairsOption,
    SetOption,
    caps_of,
    settings_of,
    source_of,
)
from capsfusion_etl.cli.rows import app as rows
from capsfusion_etl.cli.snapshots import app as snapshots
from capsfusion_etl.cli.stages import app as stages
from capsfusion_etl.console import say
from capsfusion_etl.errors import CapsfusionError, GateRefusedError, explain, first_line
from capsfusion_etl.spark.interrupts import status_asked, stop

_STOPPED = "capsfusion: stopped; run the same command again to resume"
BUG = 70  # exit status of an unexpected failure; 2 would blame the input
app = typer.Typer(
    name="capsfusion",
    help="Turn web image-text pairs into fused captions in Delta tables; check, publish and train on them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def run(
    lake: LakeOption,
    pairs: PairsOption = None,
    layout: LayoutOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    column: ColumnOption = None,
    explode: ExplodeOption = None,
    encoding: EncodingOption = None,
    limit: LimitOption = None,
    captioner: CaptionerOption = None,
    fuser: FuserOption = None,
    name: NameOption = None,
    max_usd: MaxUsdOption = None,
    max_tokens: MaxTokensOption = None,
    max_rows: MaxRowsOption = None,
) -> None:
    """Run every stage from ingest to snapshot, then train, evaluate and report; run it again to resume after a stop."""
    from capsfusion_etl.operations.complete import inputs, last_complete, mark_complete
    from capsfusion_etl.pipeline import PipelineConfig, run_pipeline
    from capsfusion_etl.snapshots.catalog import find

    options = {
        **source_of(pairs, layout, column, explode, encoding, limit),
        "captioner.name": captioner, "fuser.name": fuser, "publish.name": name,
        **caps_of(max_usd, max_tokens, max_rows),
    }  # fmt: skip
    settings = settings_of(lake, config, sets, options)
    pipeline, gate, report = PipelineConfig.of(settings), gate_step(settings), report_step()
    after = training_steps(settings)
    current = open_run(lake, settings, lazy=True)
    given = inputs(settings)
    last = last_complete(current.lake, given)
    if last is not None:
        say(f"run       nothing has changed since the last run: snapshot {last.snapshot} is up to date")
        if not pipeline.with_images:
            say(f"report    {last.report}")
            return
        manifest = find(current, last.snapshot)
    else:
        try:
            manifest = run_pipeline(current, pipeline, gate)
        except GateRefusedError:  # the report shows which expectations failed
            say(f"report    {report(current, pipeline.params_hash)}")
            raise
    if pipeline.with_images:
        for follow_up in after:
            follow_up(current, manifest)
    else:
        say("train     skipped: this lake has no pictures to train on")
    written = report(current, pipeline.params_hash)
    say(f"report    {written}")
    mark_complete(current.lake, given, manifest.name, written)


@app.command()
def plan(
    lake: LakeOption,
    config: ConfigOption = None,
    sets: SetOption = None,
    captioner: CaptionerOption = None,
    fuser: FuserOption = None,
) -> None:
    """Show what `run` would do with these settings and what it would cost; writes nothing."""
    from capsfusion_etl.operations.plan import stage_forecasts
    from capsfusion_etl.pipeline import PipelineConfig

    settings = settings_of(lake, config, sets, {"captioner.name": captioner, "fuser.name": fuser})
    wanted = PipelineConfig.of(settings)
    print(f"{'stage':24s} {'due':>10s} {'done':>10s}")
    for forecast in stage_forecasts(open_run(lake, settings, create=False, keep=False), wanted):
        print(f"{forecast.stage:24s} {forecast.due:10,d} {forecast.there:10,d}  {forecast.words}")


app.registered_commands.extend([*stages.registered_commands, *rows.registered_commands, *exports.registered_commands])


@app.command()
def sql(
    query: Annotated[
        str, typer.Argument(help='Query, for example "select verdict, count(*) from fused_captions group by 1".')
    ],
    lake: LakeOption,
    output: Annotated[str, typer.Option("--format", help="table, csv or json (one object per line).")] = "table",
    engine: Annotated[str, typer.Option(help="auto (DuckDB where it can run the query), duckdb or spark.")] = "auto",
) -> None:
    """Query the tables with SQL in Spark's dialect; each table is a view of the same name."""
    from capsfusion_etl.operations.sql import show

    settings = settings_of(lake, None, None)
    opened = open_run(lake, settings, create=False, keep=False).lake

    def register_functions() -> None:
        from capsfusion_etl.operations.udfs import register
        from capsfusion_etl.pipeline import PipelineConfig

        engines = PipelineConfig.of(settings)  # the saved settings: the SQL functions use the engines of this lake
        register(opened.spark, engines.captioner, engines.fuser)

    show(opened, query, output, engine, register_functions)


@app.command()
def dev_server(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 8001,
    latency_ms: Annotated[int, typer.Option(min=0, help="Delay before each response.")] = 0,
    batch_s: Annotated[float, typer.Option("--batch-seconds", min=0, help="Duration of a batch.")] = 5.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="name=share of requests, repeatable: 429, 500, slow, cut, malformed, empty, filtered, reset, expired"
        ),
    ] = None,
    api_key: Annotated[str | None, typer.Option(help="The only API key that is accepted; by default any.")] = None,
    model: Annotated[str | None, typer.Option(help="The only model that is served; by default any.")] = None,
    opinion: Annotated[
        list[str] | None,
        typer.Option(help="verdict=share of second opinions, repeatable: lost, embellished, false, broken"),
    ] = None,
) -> None:
    """Serve an OpenAI-compatible API for dry runs and tests, with faults on demand."""
    from capsfusion_etl.dev_server import FAULTS, Behaviour, parse_shares, serve
    from capsfusion_etl.judge.opinion import VERDICTS

    faults = parse_shares("--fault", fault or [], FAULTS)
    opinions = parse_shares("--opinion", opinion or [], VERDICTS)
    behaviour = Behaviour(latency_ms / 1000, faults, api_key, model, batch_s=batch_s, opinions=opinions)
    print(f"http://127.0.0.1:{port}/v1", flush=True)
    serve(behaviour, "127.0.0.1", port)


app.add_typer(snapshots, name="snapshots")
for _found in entry_points(group="capsfusion.commands"):
    _found.load()(app)


def main() -> None:
    """Run a command; report a failure as one line and an exit status (see `capsfusion_etl.errors`)."""
    signal.signal(signal.SIGTERM, stop)
    logging.getLogger().setLevel(logging.CRITICAL)  # libraries would log the failures that become one line below
    try:
        app()
    except SystemExit as ended:
        if ended.code in (130, 143):  # Typer turns Ctrl-C into 130
            say(_STOPPED)
        raise
    except Exception as error:  # noqa: BLE001  the one place where every failure becomes a line and a status
        if asked := status_asked():
            say(_STOPPED)
            sys.exit(asked)
        known = explain(error)
        if known is None and not isinstance(error, CapsfusionError):
            log = _write_trace()
            say(f"capsfusion: {type(error).__name__}: {first_line(str(error))}")
            say(f"capsfusion: this looks like a bug in capsfusion; the stack trace is in {log}")
            sys.exit(BUG)
        say(f"capsfusion: {known}")
        sys.exit(known.exit_code if known else BUG)


def _write_trace() -> Path:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="capsfusion-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(traceback.format_exc())
    return Path(file.name)
