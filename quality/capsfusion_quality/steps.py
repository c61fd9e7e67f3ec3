"""Entry points for the `capsfusion` commands; heavy libraries are imported only when a step runs."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from capsfusion_etl.errors import MissingDependencyError

if TYPE_CHECKING:
    from capsfusion_etl.lake.run import Run


def gate(settings: dict[str, Any]) -> Callable[..., Any]:
    """Return the gate for the section `gate` of the settings.

    Raises:
        InputError: the section or its thresholds are invalid.
        MissingDependencyError: Great Expectations is not installed.
    """
    from capsfusion_etl.settings import section

    try:
        from capsfusion_quality.gate import bind
        from capsfusion_quality.thresholds import GateConfig
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the quality gate needs {error.name}: pip install 'capsfusion-lake[quality]'"
        ) from None
    return bind(section(settings, "gate", GateConfig))


def report(run: "Run", params_hash: str) -> str:
    """Write the report of the lake; return its path."""
    from capsfusion_quality.report import write

    return str(write(run, params_hash))
