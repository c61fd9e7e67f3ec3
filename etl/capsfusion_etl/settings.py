"""Settings: one YAML file of sections, each validated into the frozen dataclass of the module that owns it.

Unknown keys and wrong types are refused with the path of the key; `--set section.key=value` overrides the file.
"""

import math
import re
from collections.abc import Hashable, Iterable
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from capsfusion_etl.errors import InputError
from capsfusion_etl.storage import as_path

# Other sections are refused here; the keys of a section are checked by the dataclass that owns it.
SECTIONS = (
    "source", "fetch", "filters", "dedup", "captioner", "fuser", "judge", "publish", "budget", "observe", "gate",
    "trainer",
)  # fmt: skip
Settings = dict[str, dict[str, Any]]
T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """YAML loader with the scalars of YAML 1.2, which refuses a key that is given twice.

    PyYAML follows YAML 1.1, where `010` is 8, `1:30` is 90, `2024-07-01` is a date and `1e-4` is a text.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  as PyYAML has it
        first: [(tag, pattern) for tag, pattern in found if tag.rpartition(":")[2] not in ("int", "float", "timestamp")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node)).replace("+", "").replace("_", "")
        return int(text, 0) if text.startswith(("0x", "0o")) else int(text)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in names:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: {key.value!r} is there twice")
            names.add(str(key.value))
        return super().construct_mapping(node, deep)


_NUMBERS = list("-+.0123456789")
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"(?:[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+)$"), _NUMBERS
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    _NUMBERS,
)


def parse_yaml(text: str, origin: str) -> Any:
    """Return the value of a YAML text: numbers as in YAML 1.2 (`1e-4`, `3e-05`), no key twice in a mapping.

    Args:
        text: one YAML document.
        origin: where the text comes from, for the message of an error.

    Raises:
        InputError: the text is not YAML, or a key is there twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{origin} is not YAML: {' '.join(str(error).split())}") from None


def load(path: str | None = None, assignments: Iterable[str] = ()) -> Settings:
    """Read the YAML file at `path` and apply `section.key=value` assignments; values are YAML scalars or lists.

    Raises:
        InputError: the file is missing or not YAML, a section is unknown, or an assignment lacks its section or value.
    """
    settings: Settings = {}
    if path is not None:
        try:
            settings = parse_yaml(as_path(path).read_text(encoding="utf-8"), path) or {}
        except OSError as error:
            raise InputError(f"cannot read the config {path}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8: {error}") from None
        if not isinstance(settings, dict) or not all(isinstance(v, dict) for v in settings.values()):
            raise InputError(f"{path} must map sections ({', '.join(SECTIONS)}) to their keys")
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        section, _, name = key.strip().partition(".")
        if not equals or not name:
            raise InputError(f"--set wants section.key=value, got {assignment!r}")
        put(settings, section, name, parse_yaml(value, f"--set {key}: {value!r}"))
    for section in settings:
        if section not in SECTIONS:
            raise InputError(f"unknown section {section!r}; use one of {', '.join(SECTIONS)}")
    return settings


def get(settings: Settings, name: str) -> object:
    """Return the setting of a dotted name, such as `source.columns.raw_caption`; None if it is not set."""
    value: object = settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def put(settings: Settings, section: str, key: str, value: object) -> None:
    """Set `section.key` in place; a dotted key reaches into a mapping, as in `source.columns.raw_caption`.

    Raises:
        InputError: a part of the key before the last one is a value, not a mapping.
    """
    target = settings.setdefault(section, {})
    *parents, last = key.split(".")
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise InputError(f"{section}.{key}: {parent} is set to a value and cannot hold {last}")
    target[last] = value


def section(settings: Settings, name: str, kind: type[T]) -> T:
    """Validate the section `name` into the frozen dataclass `kind`; a missing section gives the defaults.

    Raises:
        InputError: unknown keys or wrong types; the message has the path of each.
    """
    import json

    try:
        # Strict validation of JSON: a YAML list may fill a tuple, but a string never becomes a number.
        text = json.dumps(settings.get(name, {}))
        return TypeAdapter(kind).validate_json(text, strict=True, extra="forbid")
    except TypeError as error:
        raise InputError(f"{name}: {error}") from None
    except ValidationError as error:
        faults = [f"{'.'.join([name, *map(str, e['loc'])])}: {_say(e['type'], e['msg'])}" for e in error.errors()]
        raise InputError("; ".join(faults)) from None


def check_ranges(
    name: str, config: Any, at_least_one: Iterable[str] = (), not_negative: Iterable[str] = (),
    positive: Iterable[str] = (), unlimited: Iterable[str] = (),
) -> None:  # fmt: skip
    """Check numbers of the section `name`; null is allowed everywhere, infinity for keys that are `unlimited`.

    Raises:
        InputError: a number is out of its range, infinite or NaN.
    """
    tiny = 5e-324  # the least number above 0
    for keys, least, words in (
        (at_least_one, 1, "1 or more"),
        (not_negative, 0, "0 or more"),
        (positive, tiny, "more than 0"),
    ):
        for key in keys:
            value = getattr(config, key)
            endless = value == math.inf and key in unlimited
            if value is not None and not endless and not (math.isfinite(value) and value >= least):
                raise InputError(f"{name}.{key}: must be {words}, got {value}")


def _say(kind: str, message: str) -> str:
    return "unknown key" if kind in ("unexpected_keyword_argument", "extra_forbidden") else message
