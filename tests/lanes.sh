#!/usr/bin/env bash
# The tests of ETL and quality on each Spark that is supported, each in an environment of its own under .lanes/:
#   tests/lanes.sh                      # all
#   tests/lanes.sh 3.5                  # one
#   tests/lanes.sh 3.5 tests/etl/lake/test_lake.py -x
set -euo pipefail
cd "$(dirname "$0")/.."
declare -A PYSPARK=([3.5]="3.5.*" [4.0]="4.0.*" [4.2]="4.2.*") DELTA=([3.5]="3.3.*" [4.0]="4.0.*" [4.2]="4.4.0")
# Packages of Spark 4.2 are named in these (dist, s3), or what they test is of Spark 4 (profiles) or of none (platforms).
declare -A WITHOUT=([3.5]="test_dist lake/test_s3 test_platforms spark/test_gpu" [4.0]="test_dist lake/test_s3 test_platforms" [4.2]="")

lane() { # version, then pytest's arguments
  local version=$1 folder=.lanes/$1 without=()
  shift
  if [ ! -e "$folder/.installed" ] || [ requirements.lock -nt "$folder/.installed" ]; then
    .venv/bin/uv venv --quiet --clear --python "$(readlink -f .venv/bin/python)" "$folder"
    grep -vE '^(pyspark|delta-spark|py4j)==' requirements.lock >"$folder/constraints.txt"
    .venv/bin/uv pip install --quiet --python "$folder" --constraints "$folder/constraints.txt" \
      "pyspark==${PYSPARK[$version]}" "delta-spark==${DELTA[$version]}" \
      --editable '.[etl,s3,observe,embedded,quality,trainer,export]' pytest pytest-cov hypothesis psutil imagehash \
      datasets open_clip_torch webdataset mlcroissant uv \
      grpcio-status zstandard # Connect's clients: pyspark[connect] of 3.5 wants an old NumPy
    touch "$folder/.installed"
  fi
  for name in ${WITHOUT[$version]}; do without+=("--ignore=tests/etl/$name.py"); done
  if [ $# -eq 0 ]; then set -- tests/etl tests/quality; fi
  echo "Spark $version" >&2
  # Warnings of an old PySpark (sockets that it leaves open) are not ours.
  "$folder/bin/python" -m pytest -q -W default "${without[@]}" "$@"
}

if [ $# -gt 0 ]; then
  lane "$@"
else
  for version in "${!PYSPARK[@]}"; do lane "$version"; done
fi
