#!/bin/bash
# Builds Kubernetes, which `make test-kubernetes` runs, into target/tools/bin/kubernetes:
# etcd, its five servers and kubectl in one program, with Go and from the Go module
# proxy. The first time takes about fifteen minutes on two processors and three gigabytes;
# after that it looks and ends.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$PWD/target/tools/bin
export GOPATH=$PWD/target/go-path GOFLAGS=-modcacherw
export PATH=$PATH:/usr/local/go/bin

source=$PWD/tests/kubernetes
version=$(awk '/k8s.io\/kubernetes / { print $3; exit }' "$source/go.mod")
# What it was built from: another version, or another main.go, is another program.
from=$version-$(cat "$source"/go.mod "$source"/go.sum "$source"/main.go | sha256sum | cut -c1-16)
of=$bin/.kubernetes-version
[ -x "$bin/kubernetes" ] && [ "$(cat "$of" 2>/dev/null)" = "$from" ] && exit
command -v go >/dev/null || {
    echo "get-kubernetes: no Go here, with which Kubernetes would be built (https://go.dev/dl)" >&2
    exit 1
}

# What the server answers to `kubectl version`, and what clients derive features from.
minor=${version#v1.}
flags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
    flags+=" -X $package.gitTreeState=clean -X $package.buildDate=1970-01-01T00:00:00Z"
done
echo "==> building Kubernetes $version"
mkdir -p "$bin"
cd "$source"
CGO_ENABLED=0 go build -p "$(nproc)" -ldflags "$flags" -o "$bin/kubernetes.new" .
mv "$bin/kubernetes.new" "$bin/kubernetes"
echo "$from" >"$of"
