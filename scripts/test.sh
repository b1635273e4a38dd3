#!/bin/bash
# Unit tests, then the suites that drive the real binaries with real
# containerds. Fast ones first, and the first failure ends it.
set -euo pipefail
cd "$(dirname "$0")/.."

# In the same two halves as `make build`, and for the same reason; also, each
# half then uses the dependencies as they were built for its binary.
without_compiler=(wisp-shim wisp-container wisp-capability wisp-config wisp-fuzz)
cargo test --release --locked "${without_compiler[@]/#/--package=}"
cargo test --release --locked --workspace --exclude wisp-tests "${without_compiler[@]/#/--exclude=}"

make --no-print-directory build examples
# Without a second containerd the suites say what they leave out; CI needs it.
tests/get-containerd-2.1.sh || [ -z "${CI:-}" ]
# The same for helm and kustomize.
tests/get-helm.sh || [ -z "${CI:-}" ]
cargo test --release --locked -p wisp-tests
