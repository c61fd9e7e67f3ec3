#!/usr/bin/env bash
# Build the images of the operator, the trainer and the ETL with docker, podman or buildah.
#   REGISTRY=registry.example/capsfusion k8s/images.sh          build
#   PUSH=1 REGISTRY=registry.example/capsfusion k8s/images.sh   build, push, and print the digests for the charts
# ONLY=operator builds one; ENGINE chooses the program; EXTRAS and STORES: see the Dockerfiles.
# Bases are used by digest. images.lock keeps the digests: remove it to take newer bases.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
: "${REGISTRY:?say where the images shall lie, such as REGISTRY=registry.example/capsfusion}"
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
LOCK=images.lock

first_there() { for name; do command -v "$name" >/dev/null && echo "$name" && return; done || true; }
ENGINE=${ENGINE:-$(first_there docker podman buildah)}
[ -n "$ENGINE" ] || { echo "images.sh: install docker, podman or buildah" >&2; exit 69; }

digest_of() { # image: pull it and print its digest
  "$ENGINE" pull "$1" >/dev/null || return
  case $ENGINE in
    *buildah) "$ENGINE" inspect --type image --format '{{.FromImageDigest}}' "$1" ;;
    *) "$ENGINE" image inspect --format '{{index .RepoDigests 0}}' "$1" | sed 's/.*@//' ;;
  esac
}

pinned() { # image: print it with its digest, from the lock or from its registry
  touch "$LOCK"
  local known
  known=$(sed -n "s|^$1 ||p" "$LOCK")
  if [ -z "$known" ]; then
    known=$(digest_of "$1") && [ -n "$known" ] || { echo "images.sh: cannot pull $1" >&2; return 1; }
    echo "$1 $known" >>"$LOCK"
  fi
  echo "$1@$known"
}

for image in ${ONLY:-operator trainer etl}; do
  folder=$image && [ "$image" = operator ] && folder=k8s
  arguments=()
  while read -r name base; do
    base=$(pinned "$base")
    arguments+=(--build-arg "$name=$base")
  done < <(sed -n 's/^ARG \(BASE\|SPARK\)=/\1 /p' "$folder/Dockerfile")
  [ -n "${EXTRAS:-}" ] && [ "$image" = etl ] && arguments+=(--build-arg "EXTRAS=$EXTRAS")
  [ -n "${STORES:-}" ] && [ "$image" = trainer ] && arguments+=(--build-arg "STORES=$STORES")
  "$ENGINE" build --file "$folder/Dockerfile" --tag "$REGISTRY/$image:$VERSION" "${arguments[@]}" .
  if [ -n "${PUSH:-}" ]; then
    "$ENGINE" push "$REGISTRY/$image:$VERSION"
    echo "$REGISTRY/$image@$(digest_of "$REGISTRY/$image:$VERSION")"
  fi
done
