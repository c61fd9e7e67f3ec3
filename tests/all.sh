#!/usr/bin/env bash
# Every test, in two halves side by side, and a smoke of the oldest Spark.
set -euo pipefail
cd "$(dirname "$0")/.."
# Spark uses one core most of the time: these the other. Tests that start a Spark of their own are among them.
BESIDE=(tests/charts tests/k8s tests/cluster tests/test_demo.py tests/test_claim.py)
for name in lake/test_s3 spark/test_{connect,gpu,preflight} stages/test_fetch_faults test_{dist,kill,platforms}; do
  BESIDE+=("tests/etl/$name.py")
done
log=$(mktemp)
{
  failed=0
  .venv/bin/python -m pytest "${BESIDE[@]}" || failed=1
  tests/lanes.sh 3.5 tests/etl/cli/test_main.py::test_the_main_job_over_captions_that_the_source_brings || failed=1
  exit "$failed"
} >"$log" 2>&1 &
beside=$! failed=0
.venv/bin/python -m pytest tests "${BESIDE[@]/#/--ignore=}" || failed=1
wait "$beside" || failed=1
cat "$log"
exit "$failed"
