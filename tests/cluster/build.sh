#!/usr/bin/env bash
# The programs of a test cluster, from the Go module proxy into a per-user cache: no Docker, no download but modules.
# About 10 minutes on 2 cores the first time, more on a slow day, nothing afterwards. Prints the folder.
#   build.sh          etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok, training-operator (v1), Trainer
#                     (v2) and JobSet, their CRDs and webhooks
#   build.sh --node   besides: kubelet, CoreDNS and a pause program, for pods that are real
set -euo pipefail
KUBERNETES=1.36.4 ETCD=3.6.8 KWOK=0.8.0 TRAINING_OPERATOR=1.9.4 PROMETHEUS_OPERATOR=0.85.0 COREDNS=1.12.4
TRAINER=2.3.0 JOBSET=0.12.0
HERE=$(dirname "$(readlink -f "$0")")
OUT=${CAPSFUSION_CLUSTER_BIN:-${XDG_CACHE_HOME:-$HOME/.cache}/capsfusion/cluster-$KUBERNETES-$TRAINING_OPERATOR}
mkdir -p "$OUT"
exec 9>"$OUT/.lock" && flock 9 # two test runs at once build once
export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS="-mod=mod -trimpath" GOBIN="$OUT"

missing() { for name; do [ -e "$OUT/$name" ] || return 0; done; return 1; }

# One module for everything of Kubernetes: what they share is compiled once.
module() {
  go mod init cluster 2>/dev/null
  go mod download k8s.io/kubernetes@v$KUBERNETES
  for staged in $(sed -n 's#^\t*k8s.io/\([a-z-]*\) => ./staging.*#\1#p' "$(go env GOMODCACHE)/k8s.io/kubernetes@v$KUBERNETES/go.mod"); do
    go mod edit -replace "k8s.io/$staged=k8s.io/$staged@v0.${KUBERNETES#1.}"
  done
  go get "k8s.io/kubernetes@v$KUBERNETES" "sigs.k8s.io/kwok@v$KWOK" "go.etcd.io/etcd/server/v3@v$ETCD" \
    "github.com/coredns/coredns@v$COREDNS" "github.com/kubeflow/trainer/v2@v$TRAINER" "sigs.k8s.io/jobset@v$JOBSET"
}

# Whole or not at all: a build that was killed leaves no half-written program.
build() { # name package
  [ -e "$OUT/$1" ] && return
  echo "building $1 ..." >&2
  go build -ldflags "-s -w $VERSION" -o "$OUT/.$1" "$2" && mv "$OUT/.$1" "$OUT/$1"
}
# Copies the YAML files of a controller: its CRDs, and the webhooks that the API server is to ask.
crds() { # folder root file...
  rm -rf "$OUT/.$1" && mkdir "$OUT/.$1"
  for file in "${@:3}"; do install -m 644 "$2/$file" "$OUT/.$1/$(basename "$file")"; done
  rm -rf "${OUT:?}/$1" && mv "$OUT/.$1" "$OUT/$1"
}
VERSION="-X k8s.io/component-base/version.gitVersion=v$KUBERNETES -X k8s.io/component-base/version.gitMajor=1"
VERSION="$VERSION -X k8s.io/component-base/version.gitMinor=36"

WORK=$(mktemp -d) && trap 'rm -rf "$WORK"' EXIT && cd "$WORK"
if missing kube-apiserver kube-controller-manager kube-scheduler kwok etcd stages pytorchjobs.yaml servicemonitors.yaml prometheusrules.yaml \
  training-operator.v1 trainer jobset trainer-v2 jobset-v2 ||
  { [ "${1:-}" = --node ] && missing kubelet coredns pause; }; then
  command -v go >/dev/null || { echo "the test cluster is built with Go 1.26 or newer: install it" >&2; exit 69; }
  module >&2
  for name in kube-apiserver kube-controller-manager kube-scheduler; do build $name k8s.io/kubernetes/cmd/$name; done
  build kwok sigs.k8s.io/kwok/cmd/kwok
  build etcd go.etcd.io/etcd/server/v3
  build trainer github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager
  build jobset sigs.k8s.io/jobset
  MODULES=$(go env GOMODCACHE)
  crds trainer-v2 "$MODULES/github.com/kubeflow/trainer/v2@v$TRAINER/manifests/base" crds/trainer.kubeflow.org_trainjobs.yaml \
    crds/trainer.kubeflow.org_trainingruntimes.yaml crds/trainer.kubeflow.org_clustertrainingruntimes.yaml webhook/manifests.yaml
  crds jobset-v2 "$MODULES/sigs.k8s.io/jobset@v$JOBSET/config/components" crd/bases/jobset.x-k8s.io_jobsets.yaml \
    webhook/manifests.yaml
  cp -rT "$(go env GOMODCACHE)/sigs.k8s.io/kwok@v$KWOK/kustomize/stage" "$OUT/stages" && chmod -R u+w "$OUT/stages"
  if missing servicemonitors.yaml prometheusrules.yaml; then
    PROMETHEUS=github.com/prometheus-operator/prometheus-operator@v$PROMETHEUS_OPERATOR
    go mod download "$PROMETHEUS"
    for kind in servicemonitors prometheusrules; do
      install -m 644 "$(go env GOMODCACHE)/$PROMETHEUS/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" "$OUT/$kind.yaml"
    done
  fi
  if missing training-operator.v1 pytorchjobs.yaml; then
    echo "building training-operator ..." >&2
    (cd / && GOFLAGS=-trimpath go install -ldflags "-s -w" github.com/kubeflow/training-operator/cmd/training-operator.v1@v$TRAINING_OPERATOR)
    install -m 644 "$(go env GOMODCACHE)/github.com/kubeflow/training-operator@v$TRAINING_OPERATOR/manifests/base/crds/kubeflow.org_pytorchjobs.yaml" "$OUT/pytorchjobs.yaml"
  fi
fi
if [ "${1:-}" = --node ] && missing kubelet coredns pause; then
  build kubelet k8s.io/kubernetes/cmd/kubelet
  mkdir dns pause && cp "$HERE/node/coredns.go" dns/main.go && cp "$HERE/node/pause.go" pause/main.go
  build coredns ./dns
  build pause ./pause
fi
echo "$OUT"
