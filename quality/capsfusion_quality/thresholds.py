"""Bounds and severity of every rule, from the shipped thresholds.yaml, a custom file, and single settings."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from capsfusion_etl.errors import InputError
from capsfusion_etl.settings import parse_yaml
from pydantic import TypeAdapter, ValidationError

from capsfusion_quality.rules import DRIFT_WORDS, REFERENCE_WORDS, RULES, SHAPE_WORDS, Rule

SCHEMA = Rule("schema", "columns and their types are as documented")
SEVERITIES = ("fail", "warn")


@dataclass(frozen=True, slots=True)
class GateConfig:
    """Settings of the quality gate.

    Attributes:
        thresholds: YAML file with the rules to change or add, in the form of thresholds.yaml.
        rules: the same in the settings, as suite -> rule -> bounds; they take precedence over the file.
        folder: folder of the Great Expectations context; null: inside the lake.
    """

    thresholds: str | None = None
    rules: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    folder: str | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """Bounds and severity of a rule; `words`, `broken`, `value` and `shows` define a custom rule (see Rule).

    Attributes:
        severity: fail blocks publishing, warn only reports.
        max_share: largest share of rows that may break the rule, 0 to 1.
        min: smallest allowed value.
        max: largest allowed value.
        words: what is expected, for messages.
        broken: SQL condition that is true for a row that breaks the rule.
        value: SQL aggregate over the table.
        shows: column from which messages show examples.
    """

    severity: str = "fail"
    max_share: float | None = None
    min: float | None = None
    max: float | None = None
    words: str | None = None
    broken: str | None = None
    value: str | None = None
    shows: str = "pair_id"

    def bounds(self) -> tuple[float | None, float | None]:
        """Return the smallest and the largest allowed value; None for no bound."""
        return self.min, self.max if self.max_share is None else self.max_share


@dataclass(frozen=True, slots=True)
class Bounded:
    """A rule of a suite, with its bounds."""

    suite: str
    rule: Rule
    limit: Limit

    @property
    def words(self) -> str:
        """Return the rule and its bounds in words."""
        low, high = self.limit.bounds()
        share = self.limit.max_share
        if share is not None:
            return self.rule.words + (f", but for {share * 100:g} % of the rows" if share else "")
        said = [f"at least {low:g}" if low is not None else "", f"at most {high:g}" if high else ""]
        return ": ".join([self.rule.words, *filter(None, [" and ".join(filter(None, said))])])


def bounded(config: GateConfig) -> list[Bounded]:
    """Return every rule with its bounds, suite by suite.

    Raises:
        InputError: the thresholds file cannot be read, or it or the settings have an unknown suite, rule or key, a
            duplicate key, or an invalid value.
    """
    known = _read(
        files("capsfusion_quality").joinpath("thresholds.yaml").read_text(encoding="utf-8"), "thresholds.yaml"
    )
    layers = [known, config.rules]
    if config.thresholds is not None:
        try:
            text = Path(config.thresholds).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"gate.thresholds: cannot read {config.thresholds}: {error}") from None
        layers.insert(1, _read(text, config.thresholds))
    merged: dict[str, dict[str, dict[str, Any]]] = {suite: {} for suite in known}
    for layer in layers:
        for suite, name, values in _entries(layer):
            if suite not in known:
                raise InputError(f"gate: there is no suite {suite!r}{_meant(suite, known)}")
            own = {"broken", "value"} & set(values)
            if name not in known[suite] and not own:
                raise InputError(
                    f"gate: {suite} has no rule {name!r}{_meant(name, known[suite])}; "
                    "a custom rule needs a SQL condition `broken` or a SQL aggregate `value`"
                )
            if own and suite not in RULES:
                raise InputError(f"gate: {suite}.{name}: a custom rule is about a table, one of {', '.join(RULES)}")
            merged[suite][name] = merged[suite].get(name, {}) | values
    return [_bounded(suite, name, values) for suite, name, values in _entries(merged)]


def _bounded(suite: str, name: str, values: dict[str, Any]) -> Bounded:
    try:
        limit = TypeAdapter(Limit).validate_python(values, extra="forbid")
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        raise InputError(f"gate: {suite}.{name}.{key}: {fault['msg'].lower()}{_meant(key, Limit.__slots__)}") from None
    if limit.severity not in SEVERITIES:
        raise InputError(f"gate: {suite}.{name}.severity: {limit.severity!r} is none of {', '.join(SEVERITIES)}")
    if limit.bounds() == (None, None):
        raise InputError(f"gate: {suite}.{name}: say max_share, min or max")
    if limit.max_share is not None and not 0 <= limit.max_share <= 1:
        raise InputError(f"gate: {suite}.{name}.max_share: must be between 0 and 1")
    return Bounded(suite, _rule(suite, name, limit), limit)


def _rule(suite: str, name: str, limit: Limit) -> Rule:
    rules = {rule.name: rule for rule in (*RULES.get(suite, ()), SCHEMA)}
    words = {"references": REFERENCE_WORDS, "shape": SHAPE_WORDS, "drift": DRIFT_WORDS}.get(suite, {})
    if limit.broken or limit.value:
        return Rule(name, limit.words or name.replace("_", " "), limit.broken, limit.value, limit.shows)
    return rules[name] if name in rules else Rule(name, words[name])


def _entries(layer: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for suite, rules in layer.items():
        if not isinstance(rules, dict) or not all(isinstance(values, dict) for values in rules.values()):
            raise InputError(f"gate: {suite} must map rules to their bounds, as in `accepted: {{min: 0.5}}`")
        for name, values in rules.items():
            yield suite, name, values


def _meant(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {near[0]!r}?" if near else f"; use one of {', '.join(known)}"


def _read(text: str, path: str) -> dict[str, Any]:
    data = parse_yaml(text, path)
    if not isinstance(data, dict):
        raise InputError(f"{path} must map suites to their rules")
    return data
