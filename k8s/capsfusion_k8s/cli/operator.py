"""Commands of the operator."""

from pathlib import Path
from typing import Annotated

import typer

from capsfusion_k8s.cli.files import fail, read_run

operator = typer.Typer(help="The Kubernetes operator of training runs.", no_args_is_help=True)


@operator.command()
def render(file: Annotated[Path, typer.Argument(help="A CaptionTrainingRun as YAML.")]) -> None:
    """Print the objects that the operator would make of a run; needs no cluster.

    The pinned snapshot is shown as the one that is asked for, and its gate as passed.
    """
    import sys

    import yaml

    from capsfusion_k8s.backends import BACKENDS, backend_of
    from capsfusion_k8s.backends.choice import choose
    from capsfusion_k8s.objects.short_jobs import resolve_job
    from capsfusion_k8s.run import Run
    from capsfusion_k8s.schema import defaulted

    found = defaulted(read_run(file))
    found["metadata"] = {"uid": "00000000-0000-0000-0000-000000000000", "namespace": "default"} | found["metadata"]
    dataset = found["spec"]["dataset"]
    name = dataset.get("snapshot", dataset.get("version", "latest"))
    pin = {"name": name, "version": 0, "manifestSha256": "as-it-will-be-resolved", "gate": {"result": "passed"}}
    choice = choose(Run(found), frozenset(BACKENDS))
    found["status"] = {"snapshot": pin, "attempt": 1, "backend": choice.backend}
    run = Run(found)
    print(f"{choice.backend}: {choice.message}", file=sys.stderr)
    objects = [resolve_job(run), *backend_of(run).build(run, 1, suspend=run.suspended or "queueName" in run.spec)]
    dumper = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    print(yaml.dump_all(objects, Dumper=dumper, sort_keys=False), end="")


@operator.command()
def run(
    namespaces: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", help="Follow the runs of a namespace; repeatable.")
    ] = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Follow all runs.")] = False,
    metrics_port: Annotated[int, typer.Option("--metrics-port", help="Port for Prometheus; 0 disables it.")] = 8080,
    liveness: Annotated[
        str | None, typer.Option("--liveness", help="Probe URL, such as http://0.0.0.0:8081/healthz.")
    ] = None,
    tick: Annotated[float, typer.Option("--tick", help="Seconds between checks of a run without news.")] = 15.0,
    plain: Annotated[bool, typer.Option("--plain-logs", help="Log plain text instead of JSON.")] = False,
    level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "info",
) -> None:
    """Follow training runs until SIGTERM."""
    if bool(namespaces) == all_namespaces:
        fail("say --namespace NAME or --all-namespaces")
    import logging

    import kopf

    from capsfusion_k8s.cluster.follow import Pace
    from capsfusion_k8s.cluster.operator import serve

    kopf.configure(log_format=kopf.LogFormat.PLAIN if plain else kopf.LogFormat.JSON)
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("capsfusion").setLevel(level.upper())
    serve(namespaces, metrics_port=metrics_port, liveness=liveness, pace=Pace(tick=tick))
