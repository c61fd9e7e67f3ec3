"""Validate facts with Great Expectations: suites, one checkpoint and Data Docs, created by code in a file context."""

import contextlib
import io
import logging
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from capsfusion_quality.measure import Fact
from capsfusion_quality.thresholds import Bounded

RESULTS_SHOWN = 200  # on the index page of Data Docs; quality_results has all of them
Facts = dict[tuple[str, str], Fact]


def validate(rules: list[Bounded], facts: Facts, folder: Path, docs: Path) -> dict[tuple[str, str], bool]:
    """Run one checkpoint over the facts of all suites, and update the Data Docs.

    Args:
        rules: the rules with their bounds.
        facts: (suite, rule name) -> fact, for every rule.
        folder: folder of the file context; the first call creates it, and a lock admits one process at a time.
        docs: folder of the Data Docs.

    Returns:
        (suite, rule name) -> whether the rule holds.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder / "gate.lock")), _quiet():
        import great_expectations as gx
        from great_expectations.data_context.types.resource_identifiers import ExpectationSuiteIdentifier

        _write(rules, facts, folder / "facts")
        context = gx.get_context(mode="file", project_root_dir=str(folder))
        _site(context, docs)
        source = context.data_sources.add_or_update_pandas_filesystem("facts", base_directory=folder / "facts")
        checkpoint = gx.Checkpoint(
            name="gate",
            validation_definitions=[
                _validation(context, source, suite, [r for r in rules if r.suite == suite], facts)
                for suite in dict.fromkeys(r.suite for r in rules)
            ],
            result_format="SUMMARY",
        )
        outcome = context.checkpoints.add_or_update(checkpoint).run()
        # One build for all suites: as an action of the checkpoint it would write the index again for each suite.
        suites = [ExpectationSuiteIdentifier(name=suite) for suite in dict.fromkeys(r.suite for r in rules)]
        pages: Any = [*outcome.run_results, *suites]
        context.build_data_docs(resource_identifiers=pages)
        found = {}
        for result in (r for v in outcome.run_results.values() for r in v.results):
            meta: Any = getattr(result.expectation_config, "meta", None)
            found[meta["suite"], meta["rule"]] = bool(result.success)
        return found


def _validation(context: Any, source: Any, suite: str, rules: list[Bounded], facts: Facts) -> Any:
    import great_expectations as gx
    from great_expectations.expectations.metadata_types import FailureSeverity

    from capsfusion_quality.expect_fact import ExpectFactToBeBetween

    expectations = []
    for item in rules:
        fact, (low, high) = facts[suite, item.rule.name], item.limit.bounds()
        expectations.append(
            ExpectFactToBeBetween(
                column=item.rule.name,
                min_value=low,
                max_value=high,
                severity=FailureSeverity.CRITICAL if item.limit.severity == "fail" else FailureSeverity.WARNING,
                description=item.words,
                notes=[f"for example: {row}" for row in fact.examples] or None,
                meta={"suite": suite, "rule": item.rule.name, "seen": fact.seen},
            )
        )
    made = context.suites.add_or_update(gx.ExpectationSuite(name=suite, expectations=expectations))
    batch = source.add_parquet_asset(suite).add_batch_definition_path("now", path=f"{suite}.parquet")
    return context.validation_definitions.add_or_update(gx.ValidationDefinition(name=suite, data=batch, suite=made))


def _write(rules: list[Bounded], facts: Facts, folder: Path) -> None:
    """Write a Parquet file for each suite, with one row: a column for each fact, NaN if it could not be computed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(exist_ok=True)
    for suite in {r.suite for r in rules}:
        values = {r.rule.name: facts[suite, r.rule.name].value for r in rules if r.suite == suite}
        columns = {name: [math.nan if value is None else value] for name, value in values.items()}
        pq.write_table(pa.table(columns), folder / f"{suite}.parquet")


def _site(context: Any, docs: Path) -> None:
    """Configure `docs` as the only site of Data Docs."""
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)}
    site = {
        "class_name": "SiteBuilder", "show_how_to_buttons": False, "store_backend": store,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder", "validation_results_limit": RESULTS_SHOWN},
    }  # fmt: skip
    for name in list(context.variables.data_docs_sites or {}):
        if name != "lake":
            context.delete_data_docs_site(name)
    if "lake" in (context.variables.data_docs_sites or {}):
        context.update_data_docs_site("lake", site)
    else:
        context.add_data_docs_site("lake", site)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Great Expectations, which prints progress bars and internal warnings."""
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
