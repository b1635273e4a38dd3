#!/bin/bash
# Unit tests, then the suites that drive the real binaries with real
# containerds. Fast ones first, and the first failure ends it.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --release --locked --workspace --exclude wisp-tests

# Only now: testing the whole workspace unifies features, and may leave
# binaries behind that were linked so.
make --no-print-directory build examples
# Without a second containerd the suites say what they leave out; CI needs it.
tests/get-containerd-2.1.sh || [ -z "${CI:-}" ]
cargo test --release --locked -p wisp-tests
