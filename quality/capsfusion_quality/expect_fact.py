"""Custom expectation: a fact that Spark measured lies within its bounds. Imports Great Expectations, which is slow."""

from html import escape
from typing import Any

from great_expectations import expectations as gxe


class ExpectFactToBeBetween(gxe.ExpectColumnMaxToBeBetween):
    """Expects the only value of a column to be within bounds; Data Docs show `meta.seen` as the observed value."""

    @classmethod
    def _get_observed_value_from_evr(cls, result: Any) -> str:
        # Data Docs escape notes, but not this value, in which a host or a caption may stand.
        return escape(str(result.expectation_config.meta["seen"])) if result is not None else "--"
