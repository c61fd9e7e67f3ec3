#!/usr/bin/env bash
# versitygw, an S3 server over a folder (Apache-2.0, one program, in the Go module proxy), into a per-user cache; prints
# its path. MinIO is under the AGPL; moto answers like S3 but is no store of its own.
set -euo pipefail
VERSION=1.8.0
OUT=${CAPSFUSION_S3_BIN:-${XDG_CACHE_HOME:-$HOME/.cache}/capsfusion/versitygw-$VERSION}
mkdir -p "$OUT"
exec 9>"$OUT/.lock" && flock 9 # two test runs at once build once
if [ ! -x "$OUT/versitygw" ]; then
  command -v go >/dev/null || { echo "the S3 server of the tests is built with Go 1.26 or newer: install it" >&2; exit 69; }
  echo "building versitygw ..." >&2
  work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
  CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-trimpath GOBIN="$work" go install -ldflags "-s -w" "github.com/versity/versitygw/cmd/versitygw@v$VERSION"
  mv "$work/versitygw" "$OUT/"
fi
echo "$OUT/versitygw"
