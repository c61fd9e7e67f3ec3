#!/usr/bin/env bash
# image_jars.sh PYTHON TARGET: collect the jars that a Spark image needs besides Spark's own, for Delta and for S3.
# A session resolves them from Maven, exactly as on any other machine.
set -euo pipefail
PYTHON=$1 TARGET=$2
HERE=$(mktemp -d) && trap 'rm -rf "$HERE"' EXIT
JAVA_TOOL_OPTIONS=-Duser.home=$HERE "$PYTHON" -c 'from capsfusion_etl.spark.session import get_session; get_session(lake="s3a://any").stop()'
SPARK=$("$PYTHON" -c 'import pathlib, pyspark; print(pathlib.Path(pyspark.__file__).parent / "jars")')
mkdir -p "$TARGET"
for jar in "$HERE"/.ivy2*/jars/*.jar; do
  name=$(basename "$jar")
  name=${name#*_} # without its group
  compgen -G "$SPARK/${name%%-[0-9]*}-[0-9]*.jar" >/dev/null || cp "$jar" "$TARGET/$name"
done
for wanted in delta-spark hadoop-aws s3-transfer-manager; do
  compgen -G "$TARGET/$wanted*.jar" >/dev/null || { echo "image_jars.sh: no $wanted was resolved" >&2; exit 1; }
done
