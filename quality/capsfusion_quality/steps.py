"""What this package offers to `capsfusion run`: light to import, the heavy parts load when a step runs."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from capsfusion_etl.errors import MissingDependencyError

if TYPE_CHECKING:
    from capsfusion_etl.lake.run import Run


def gate(settings: dict[str, Any]) -> Callable[..., Any]:
    """The gate of the settings' `gate` section.

    Raises:
        InputError: the section is wrong.
        MissingDependencyError: Great Expectations is not installed.
    """
    from capsfusion_etl.settings import section

    try:
        from capsfusion_quality.gate import bind
        from capsfusion_quality.thresholds import GateConfig
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"no {error.name}: pip install 'capsfusion-lake[quality]'") from None
    return bind(section(settings, "gate", GateConfig))


def report(run: "Run", params_hash: str) -> str:
    """Write the report of the lake; returns where it is."""
    from capsfusion_quality.report import write

    return str(write(run, params_hash))
