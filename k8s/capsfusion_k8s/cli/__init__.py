"""Commands that manage training runs without kubectl."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from capsfusion_k8s.cli.files import fail, read_run
from capsfusion_k8s.cli.operator import operator

if TYPE_CHECKING:  # importing the client takes half a second, too long for --help
    from capsfusion_k8s.cluster.api import Api

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run, or the file it was submitted from.")]
NamespaceOption = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace; by default the file's, or kubectl's current one.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this package to `app`."""
    for command in (submit, status, logs, suspend, resume):
        app.command()(command)
    app.add_typer(operator, name="operator")


def submit(
    file: Annotated[Path, typer.Argument(help="A CaptionTrainingRun as YAML.")], namespace: NamespaceOption = None
) -> None:
    """Submit a training run."""
    found = read_run(file)
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
    from capsfusion_k8s.cli.show import shown

    with _cluster() as api:
        found = _find(api, run, namespace)
    print(json.dumps(found.get("status", {}), indent=1) if as_json else shown(found))


def logs(
    run: RunArgument, namespace: NamespaceOption = None,
    tail: Annotated[int | None, typer.Option("--tail", help="Last lines of each pod to print; by default all.")] = None,
) -> None:  # fmt: skip
    """Print the logs of the newest attempt's pods, or of the resolve Job if there are none."""
    from capsfusion_k8s.cluster.kinds import PODS
    from capsfusion_k8s.objects.meta import ATTEMPT, ROLE

    with _cluster() as api:
        found = _find(api, run, namespace)
        where, name = found["metadata"]["namespace"], found["metadata"]["name"]
        attempt = str(found.get("status", {}).get("attempt", ""))
        pods = api.listed(PODS, where, name)
        newest = [pod for pod in pods if pod["metadata"]["labels"].get(ATTEMPT) == attempt]
        chosen = newest or [pod for pod in pods if pod["metadata"]["labels"].get(ROLE) == "resolver"]
        if not chosen:
            fail(f"{where}/{name} has no pods: run `capsfusion status {name} -n {where}` to see why")
        for pod in sorted(chosen, key=lambda pod: str(pod["metadata"]["name"])):
            title = pod["metadata"]["name"]
            for line in api.log(pod, tail).splitlines():
                print(f"{title}  {line}")


def suspend(run: RunArgument, namespace: NamespaceOption = None) -> None:
    """Save a checkpoint and free the machines; `resume` continues from it."""
    _set_suspend(run, namespace, True, "is asked to save and pause")


def resume(run: RunArgument, namespace: NamespaceOption = None) -> None:
    """Resume a suspended run from its last checkpoint."""
    _set_suspend(run, namespace, False, "is asked to resume")


def _set_suspend(run: str, namespace: str | None, value: bool, said: str) -> None:
    with _cluster() as api:
        found = _find(api, run, namespace)
        where, name = found["metadata"]["namespace"], found["metadata"]["name"]
        api.patch_spec(where, name, {"suspend": value})
    print(f"{where}/{name} {said}")


def _find(api: "Api", run: str, namespace: str | None) -> dict[str, Any]:
    from capsfusion_k8s.cluster.kinds import RUNS

    if Path(run).is_file():
        metadata = read_run(Path(run))["metadata"]
        run, namespace = metadata["name"], namespace or metadata.get("namespace")
    namespace = namespace or _current()
    found = api.get(RUNS, namespace, run)
    if found is None:
        there = ", ".join(sorted(item["metadata"]["name"] for item in api.listed(RUNS, namespace))) or "none"
        fail(f"there is no training run {run} in namespace {namespace}; existing runs: {there}")
    return found


@contextmanager
def _cluster() -> Iterator["Api"]:
    """Connect to the API server; turn its errors into one line on stderr and exit status 2."""
    from kubernetes.client import ApiException
    from kubernetes.config import ConfigException
    from urllib3.exceptions import HTTPError

    from capsfusion_k8s.cluster.api import Api, words
    from capsfusion_k8s.cluster.operator import connect

    try:
        yield Api(connect())
    except ConfigException as error:
        fail(f"no cluster is configured: {error}")
    except ApiException as error:
        missing = error.status == 404 and "could not find the requested resource" in str(error.body)
        fail(
            "the kind CaptionTrainingRun is missing in this cluster: install the chart capsfusion-crds"
            if missing
            else words(error)[1]
        )
    except HTTPError as error:
        fail(f"the API server does not answer: {error}")


def _current() -> str:
    from kubernetes import config

    try:
        return str(config.list_kube_config_contexts()[1]["context"].get("namespace", "default"))
    except config.ConfigException:
        return "default"
