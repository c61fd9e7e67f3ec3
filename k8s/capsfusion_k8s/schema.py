"""Check a run as the API server does, without one: by the schema and the rules of its CRD, which are the one source."""

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from importlib.resources import files
from typing import Any

from capsfusion_k8s.run import GROUP, KIND, VERSION, Object, parsed

_OPEN = "x-kubernetes-preserve-unknown-fields"
_RULES = "x-kubernetes-validations"


def faults(found: Object) -> list[str]:
    """Return what the API server would refuse, one line per fault that begins with the path of the field."""
    from jsonschema import Draft202012Validator, FormatChecker

    formats = FormatChecker(formats=())
    formats.checks("date-time", raises=ValueError)(_is_time)
    checker = Draft202012Validator(_closed(_schema()), format_checker=formats)
    wrong = sorted(checker.iter_errors(found), key=lambda error: list(map(str, error.absolute_path)))
    said = [f"{_path(error.absolute_path)}: {error.message}" for error in wrong]
    return said or list(_broken_rules(_schema(), defaulted(found), ""))


def defaulted(found: Object) -> Object:
    """Return the run with the defaults that the API server sets."""
    whole: Object = deepcopy(found)
    _set_defaults(_schema(), whole)
    return whole


@cache
def _schema() -> Object:
    import yaml

    crd = yaml.safe_load(files("capsfusion_k8s").joinpath("crd.yaml").read_text(encoding="utf-8"))
    schema: Object = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    head: Object = {
        "apiVersion": {"const": f"{GROUP}/{VERSION}"}, "kind": {"const": KIND},
        "metadata": {
            "type": "object", "required": ["name"], _OPEN: True,
            "properties": {"name": {"type": "string"}, "namespace": {"type": "string"}},
        },
    }  # fmt: skip
    return schema | {"required": ["apiVersion", "kind", "metadata", "spec"], "properties": head | schema["properties"]}


def _closed(schema: Any) -> Any:
    """Return the schema with all unlisted fields refused, as `fieldValidation: Strict` does."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: value if key in ("default", "enum") else _closed(value) for key, value in schema.items()}
    shut = schema.get("type") == "object" and "properties" in schema and not schema.get(_OPEN)
    return found | ({"additionalProperties": False} if shut else {})


def _set_defaults(schema: Object, found: Any) -> None:
    for key, part in schema.get("properties", {}).items():
        if isinstance(found, dict):
            if key not in found and "default" in part:
                found[key] = deepcopy(part["default"])
            if key in found:
                _set_defaults(part, found[key])
    for item in found if isinstance(found, list) else []:
        _set_defaults(schema.get("items", {}), item)


def _broken_rules(schema: Object, found: Any, path: str) -> Iterator[str]:
    import cel

    for rule in schema.get(_RULES, []):
        if "oldSelf" not in rule["rule"] and not cel.evaluate(rule["rule"], {"self": found}):
            yield f"{path or 'metadata.name'}: {rule['message']}"
    for key, part in schema.get("properties", {}).items():
        if isinstance(found, dict) and key in found:
            yield from _broken_rules(part, found[key], f"{path}.{key}".lstrip("."))
    for at, item in enumerate(found if isinstance(found, list) else []):
        yield from _broken_rules(schema.get("items", {}), item, f"{path}[{at}]")


def _path(parts: Any) -> str:
    words = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts]
    return "".join(words).lstrip(".") or "run"


def _is_time(value: object) -> bool:
    return not isinstance(value, str) or parsed(value).tzinfo is not None
