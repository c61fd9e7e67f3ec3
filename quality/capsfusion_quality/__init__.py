"""Great Expectations suites over the tables of a lake, the gate in front of every snapshot, and the report."""
