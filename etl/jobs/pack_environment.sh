#!/usr/bin/env bash
# A Python environment in one file, for clusters whose nodes have Python but not our libraries:
#   dist/pack_environment.sh dist/capsfusion_lake-*.whl            # makes environment.tar.gz
#   spark-submit --archives environment.tar.gz#environment --conf spark.pyspark.python=./environment/bin/python ...
# Run it where system and Python are those of the cluster: the archive has libraries, not the interpreter itself.
# EXTRAS: workers for Spark's workers; quality for a driver that judges and publishes; embedded or vllm for engines.
set -euo pipefail
wheel=$(readlink -f "${1:?the wheel}") extras=${EXTRAS:-workers,quality} out=${OUT:-environment.tar.gz}
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/environment"
"$folder/environment/bin/pip" install --quiet "$wheel[$extras]" venv-pack
"$folder/environment/bin/venv-pack" --quiet --force --prefix "$folder/environment" --output "$out"
echo "$out"
