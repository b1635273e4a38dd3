#!/bin/bash
# Format, clippy and the dependency policy, for the workspace and the guests.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --all --check
cargo clippy --release --locked --workspace --all-targets --quiet -- -D warnings
cargo clippy --release --locked -p wisp-shim --features train --quiet -- -D warnings

(
    cd examples
    export CARGO_TARGET_DIR=../target/examples
    cargo fmt --all --check
    cargo clippy --release --locked --quiet --target wasm32-wasip1 \
        -p hello-module -p tour -- -D warnings
    cargo clippy --release --locked --quiet --target wasm32-wasip2 \
        -p hello -p tour -p command-03 -p config -p hostile -p http-02 -p http-03 -- -D warnings
    cargo clippy --locked --quiet -p broken -- -D warnings
)

# What the benchmarks run and are compared with. The peer's dependencies are its
# own affair: nothing of them is shipped.
(
    cd benches/guests
    cargo fmt --all --check
    CARGO_TARGET_DIR=../../target/bench/guests-build \
        cargo clippy --release --locked --quiet --target wasm32-wasip2 -- -D warnings
)
(cd benches/peer-runwasi && cargo fmt --all --check)

# What `cargo fuzz` builds takes nightly Rust; that the same targets can be built is
# seen from crates/fuzz.
(cd fuzz && cargo fmt --check)

export PATH="$PWD/target/tools/bin:$PATH"
if ! command -v cargo-deny >/dev/null; then
    if [ -z "${CI:-}" ]; then
        echo "lint: SKIPPED the dependency policy: no cargo-deny here (cargo install cargo-deny --locked)"
        exit 0
    fi
    cargo install --quiet --locked --root target/tools cargo-deny
fi
for workspace in Cargo.toml examples/Cargo.toml benches/guests/Cargo.toml; do
    deny=(cargo deny --locked --manifest-path "$workspace" --config "$PWD/deny.toml" --log-level error)
    "${deny[@]}" check --hide-inclusion-graph bans licenses sources
    # The advisories are not in a registry; without a way to them, say so.
    if ! advisories=$("${deny[@]}" check --hide-inclusion-graph advisories 2>&1); then
        if ! grep -q "failed to fetch advisory database" <<<"$advisories"; then
            echo "$advisories"
            exit 1
        fi
        echo "lint: SKIPPED advisories of $workspace: their database cannot be reached from here"
    fi
done
