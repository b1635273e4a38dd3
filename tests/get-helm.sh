#!/bin/bash
# Builds helm and kustomize, which the tests of deploy/ run, into target/tools/bin/,
# with Go and from the Go module proxy. The first time takes some minutes and half a
# gigabyte; after that it looks and ends.
set -euo pipefail
cd "$(dirname "$0")/.."
helm=v3.19.0
kustomize=v5.7.1

bin=$PWD/target/tools/bin
export GOPATH=$PWD/target/go-path GOBIN=$bin GOFLAGS=-modcacherw
export PATH=$PATH:/usr/local/go/bin

# get NAME PACKAGE VERSION
get() {
    local of=$bin/.$1-version
    [ -x "$bin/$1" ] && [ "$(cat "$of" 2>/dev/null)" = "$3" ] && return
    command -v go >/dev/null || {
        echo "get-helm: no Go here, with which $1 would be built (https://go.dev/dl)" >&2
        exit 1
    }
    echo "==> building $1 $3"
    go install "$2@$3"
    echo "$3" >"$of"
}
get kustomize sigs.k8s.io/kustomize/kustomize/v5 "$kustomize"
get helm helm.sh/helm/v3/cmd/helm "$helm"
