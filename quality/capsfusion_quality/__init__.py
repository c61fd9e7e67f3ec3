"""Data quality of a lake: the gate that every snapshot must pass, its Great Expectations suites, the HTML report."""
