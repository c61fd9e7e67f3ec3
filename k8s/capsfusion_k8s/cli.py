"""Commands that manage training runs without kubectl, and the commands of the operator."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:  # importing the client takes half a second, too long for --help
    from yaml import SafeLoader

    from capsfusion_k8s.api import Api

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run, or the file it was submitted from.")]
NamespaceOption = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace; by default the file's, or kubectl's current one.")
]
operator = typer.Typer(help="The Kubernetes operator of training runs.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this package to `app`."""
    for command in (submit, status, logs, suspend, resume):
        app.command()(command)
    app.add_typer(operator, name="operator")


def submit(
    file: Annotated[Path, typer.Argument(help="A CaptionTrainingRun as YAML.")], namespace: NamespaceOption = None
) -> None:
    """Submit a training run."""
    found = _read(file)
    with _cluster() as api:
        found["metadata"]["namespace"] = where = namespace or found["metadata"].get("namespace") or _current()
        api.create_run(found)
    name = found["metadata"]["name"]
    image = found["spec"]["trainer"]["image"]
    if "@" not in image:
        print(
            f"capsfusion: {image} has no digest: a later attempt may get a different image; use IMAGE@sha256:...",
            file=sys.stderr,
        )
    print(f"{where}/{name} is submitted; see how it goes: capsfusion status {name} -n {where}")


def status(
    run: RunArgument, namespace: NamespaceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole status as JSON.")] = False,
) -> None:  # fmt: skip
    """Show how far a training run is, and what it waits for."""
    from capsfusion_k8s.show import shown

    with _cluster() as api:
        found = _find(api, run, namespace)
    print(json.dumps(found.get("status", {}), indent=1) if as_json else shown(found))


def logs(
    run: RunArgument, namespace: NamespaceOption = None,
    tail: Annotated[int | None, typer.Option("--tail", help="Last lines of each pod to print; by default all.")] = None,
) -> None:  # fmt: skip
    """Print the logs of the newest attempt's pods, or of the resolve Job if there are none."""
    from capsfusion_k8s.build import ATTEMPT, ROLE
    from capsfusion_k8s.store import PODS

    with _cluster() as api:
        found = _find(api, run, namespace)
        where, name = found["metadata"]["namespace"], found["metadata"]["name"]
        attempt = str(found.get("status", {}).get("attempt", ""))
        pods = api.listed(PODS, where, name)
        newest = [pod for pod in pods if pod["metadata"]["labels"].get(ATTEMPT) == attempt]
        chosen = newest or [pod for pod in pods if pod["metadata"]["labels"].get(ROLE) == "resolver"]
        if not chosen:
            _fail(f"{where}/{name} has no pods: run `capsfusion status {name} -n {where}` to see why")
        for pod in sorted(chosen, key=lambda pod: str(pod["metadata"]["name"])):
            title = pod["metadata"]["name"]
            for line in api.log(where, title, tail).splitlines():
                print(f"{title}  {line}")


def suspend(run: RunArgument, namespace: NamespaceOption = None) -> None:
    """Save a checkpoint and free the machines; `resume` continues from it."""
    _set_suspend(run, namespace, True, "is asked to save and pause")


def resume(run: RunArgument, namespace: NamespaceOption = None) -> None:
    """Resume a suspended run from its last checkpoint."""
    _set_suspend(run, namespace, False, "is asked to resume")


@operator.command()
def render(file: Annotated[Path, typer.Argument(help="A CaptionTrainingRun as YAML.")]) -> None:
    """Print the PyTorchJob that the operator would create; needs no cluster."""
    import yaml

    from capsfusion_k8s.build import pytorchjob
    from capsfusion_k8s.run import Run

    found = _read(file)
    found["metadata"] = {"uid": "00000000-0000-0000-0000-000000000000", "namespace": "default"} | found["metadata"]
    dataset = found["spec"]["dataset"]
    name = dataset.get("snapshot", dataset.get("version", "latest"))
    pin = {"name": name, "version": 0, "manifestSha256": "as-it-will-be-resolved"}
    found["status"] = {"snapshot": pin, "attempt": 1}
    print(yaml.safe_dump(pytorchjob(Run(found), 1, suspend="queueName" in found["spec"]), sort_keys=False), end="")


@operator.command()
def run(
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Follow the runs of a namespace.")] = None,
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
    if (namespace is None) != all_namespaces:
        _fail("say --namespace NAME or --all-namespaces")
    import logging

    import kopf

    from capsfusion_k8s.follow import Pace
    from capsfusion_k8s.operator import serve

    kopf.configure(log_format=kopf.LogFormat.PLAIN if plain else kopf.LogFormat.JSON)
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("capsfusion").setLevel(level.upper())
    serve(namespace, metrics_port=metrics_port, liveness=liveness, pace=Pace(tick=tick))


def _set_suspend(run: str, namespace: str | None, value: bool, said: str) -> None:
    with _cluster() as api:
        found = _find(api, run, namespace)
        where, name = found["metadata"]["namespace"], found["metadata"]["name"]
        api.patch_spec(where, name, {"suspend": value})
    print(f"{where}/{name} {said}")


def _find(api: "Api", run: str, namespace: str | None) -> dict[str, Any]:
    from capsfusion_k8s.store import RUNS

    if Path(run).is_file():
        metadata = _read(Path(run))["metadata"]
        run, namespace = metadata["name"], namespace or metadata.get("namespace")
    namespace = namespace or _current()
    found = api.get(RUNS, namespace, run)
    if found is None:
        there = ", ".join(sorted(item["metadata"]["name"] for item in api.listed(RUNS, namespace))) or "none"
        _fail(f"there is no training run {run} in namespace {namespace}; existing runs: {there}")
    return found


def _loader() -> type["SafeLoader"]:
    """Return a loader that reads numbers as kubectl does: PyYAML takes `1e-4` for text."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    number = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader


def _read(file: Path) -> dict[str, Any]:
    import yaml

    from capsfusion_k8s.run import GROUP, KIND, VERSION

    try:
        found = yaml.load(file.read_text(encoding="utf-8"), Loader=_loader())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        _fail(f"cannot read {file}: {error}")
    if not isinstance(found, dict) or (found.get("apiVersion"), found.get("kind")) != (f"{GROUP}/{VERSION}", KIND):
        _fail(f"{file} is no {KIND} of {GROUP}/{VERSION}")
    for path in ("metadata.name", "spec.dataset.uri", "spec.trainer.image", "spec.checkpoint.uri"):
        part: Any = found
        for key in path.split("."):
            part = part.get(key) if isinstance(part, dict) else None
        if not part:
            _fail(f"{file} has no {path}")
    if not {"recipe", "command"} & set(found["spec"]["trainer"]):
        _fail(f"{file}: say trainer.recipe or trainer.command")
    return found


@contextmanager
def _cluster() -> Iterator["Api"]:
    """Connect to the API server; turn its errors into one line on stderr and exit status 2."""
    from kubernetes.client import ApiException
    from kubernetes.config import ConfigException
    from urllib3.exceptions import HTTPError

    from capsfusion_k8s.api import Api, words
    from capsfusion_k8s.operator import connect

    try:
        yield Api(connect())
    except ConfigException as error:
        _fail(f"no cluster is configured: {error}")
    except ApiException as error:
        missing = error.status == 404 and "could not find the requested resource" in str(error.body)
        _fail(
            "the kind CaptionTrainingRun is missing in this cluster: install the chart capsfusion-crds"
            if missing
            else words(error)[1]
        )
    except HTTPError as error:
        _fail(f"the API server does not answer: {error}")


def _current() -> str:
    from kubernetes import config

    try:
        return str(config.list_kube_config_contexts()[1]["context"].get("namespace", "default"))
    except config.ConfigException:
        return "default"


def _fail(message: str) -> NoReturn:
    print(f"capsfusion: {message}", file=sys.stderr)
    raise typer.Exit(2)
