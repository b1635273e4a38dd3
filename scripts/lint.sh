#!/bin/bash
# Format, clippy and the dependency policy, for the workspace and the guests.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --all --check
cargo clippy --release --locked --workspace --all-targets --quiet -- -D warnings

(
    cd examples
    export CARGO_TARGET_DIR=../target/examples
    cargo fmt --all --check
    cargo clippy --release --locked --quiet --target wasm32-wasip1 \
        -p hello-module -p tour -- -D warnings
    cargo clippy --release --locked --quiet --target wasm32-wasip2 \
        -p hello -p tour -p command-03 -p http-02 -p http-03 -- -D warnings
    cargo clippy --locked --quiet -p broken -- -D warnings
)

if cargo deny --version >/dev/null 2>&1; then
    cargo deny --locked check
else
    echo "lint: SKIPPED the dependency policy: cargo-deny is not installed (cargo install cargo-deny --locked)"
fi
