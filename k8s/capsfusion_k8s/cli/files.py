"""Read the file of a run."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from yaml import SafeLoader


def read_run(file: Path) -> dict[str, Any]:
    """Return the run of a YAML file; end with status 2 and one line per fault if the API server would refuse it."""
    import yaml

    from capsfusion_k8s.run import GROUP, KIND, VERSION
    from capsfusion_k8s.schema import faults

    try:
        documents = [part for part in yaml.load_all(file.read_text(encoding="utf-8"), Loader=_loader()) if part]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        fail(f"cannot read {file}: {error}")
    runs = [part for part in documents if isinstance(part, dict) and part.get("kind") == KIND]
    if len(runs) != 1:
        fail(f"{file} holds {len(runs)} objects of the kind {KIND} of {GROUP}/{VERSION}, not one")
    wrong = faults(runs[0])
    if wrong:
        fail("\n".join(f"{file}: {line}" for line in wrong))
    return dict(runs[0])


def fail(message: str) -> NoReturn:
    """Print a message as this project's errors begin, and exit with status 2."""
    print(f"capsfusion: {message}", file=sys.stderr)
    raise typer.Exit(2)


def _loader() -> type["SafeLoader"]:
    """Return a loader that reads numbers as kubectl does: PyYAML takes `1e-4` for text."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    number = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in Loader.yaml_implicit_resolvers.items()
    }
    return Loader
