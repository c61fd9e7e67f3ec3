"""Our expectation: a fact, which Spark has found, lies within its bounds. Loads Great Expectations."""

from typing import Any

from great_expectations import expectations as gxe


class ExpectFactToBeBetween(gxe.ExpectColumnMaxToBeBetween):
    """The one value of a column of facts is within bounds; Data Docs show in words what was seen (`meta.seen`)."""

    @classmethod
    def _get_observed_value_from_evr(cls, result: Any) -> str:
        return str(result.expectation_config.meta["seen"]) if result is not None else "--"
